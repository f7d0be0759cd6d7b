"""Whose fault a worker's end was: what comes from outside costs nobody anything, what a request does is its own affair."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from integration.endpoint import Endpoint
from integration.kinds import http_only, once_is_enough
from support import wait_until

pytestmark = pytest.mark.faults

TASK_LIMIT_S = 1.5


@pytest.fixture(scope="module")
def limited(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A container whose pool workers have little time and little memory."""
    endpoint = Endpoint(
        tmp_path_factory.mktemp("limited"),
        MULTIGPU_FRONT_END=kind,
        MULTIGPU_PREPROCESS_TIMEOUT_S=str(TASK_LIMIT_S),
        MULTIGPU_PREPROCESS_MEMORY_MB="256",
        MULTIGPU_REQUEST_TIMEOUT_S="20",
    ).with_script("commands")
    try:
        yield endpoint.start().ready()
    finally:
        endpoint.clean_up()


@pytest.fixture
def whole(limited: Endpoint) -> Endpoint:
    """The same, with all that earlier tests have cost back in place."""
    wait_until(lambda: all_are_back(limited), 20)
    # A fresh worker's first task has more time.
    with ThreadPoolExecutor(4) as threads:
        assert {a.status_code for a in threads.map(lambda _: limited.invoke({}), range(8))} == {200}
    return limited


def all_are_back(endpoint: Endpoint) -> bool:
    """Two pool workers, a spare and two replicas, and everybody else has been told of as dead."""
    return len(endpoint.events("worker_ready")) - len(endpoint.events("worker_died")) == 5


def deaths(endpoint: Endpoint) -> int:
    """How many workers have died, all told."""
    wait_until(lambda: all_are_back(endpoint), 20)
    return len(endpoint.events("worker_died"))


def killed_in(endpoint: Endpoint, function: str, told: Path, times: int) -> requests.Response:
    """The answer of a request whose worker is killed from outside, so many times."""
    told.mkdir()
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(endpoint.invoke, {function: {"tell": str(told), "sleep_s": 0.8}})
        killed = set[str]()
        for _ in range(times):
            (pid,) = wait_until(lambda: {path.name for path in told.iterdir()} - killed, 10)
            killed.add(pid)
            os.kill(int(pid), signal.SIGKILL)
        return answer.result()


@pytest.mark.parametrize("function", ["input_fn", "output_fn"])
def test_a_request_whose_pool_workers_are_killed_from_outside_is_answered(
    whole: Endpoint, function: str, tmp_path: Path
) -> None:
    before = deaths(whole)
    assert killed_in(whole, function, tmp_path / "told", times=3).status_code == 200
    died = whole.events("worker_died")[before:]
    assert [event["cause"] for event in died] == ["from outside"] * 3


@once_is_enough
def test_one_whose_workers_are_killed_again_and_again_is_503_and_its_content_is_served_afterwards(
    whole: Endpoint, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    answer = killed_in(whole, "input_fn", told, times=4)
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == str(answer.json()["retry_after_s"])
    assert whole.invoke({"input_fn": {"tell": str(told), "sleep_s": 0.8}}).status_code == 200


def test_a_request_whose_replicas_are_killed_from_outside_is_no_reason_to_refuse_it(whole: Endpoint, tmp_path: Path) -> None:
    told = tmp_path / "told"
    answer = killed_in(whole, "predict_fn", told, times=2)  # of two: whoever is back first takes it
    assert answer.status_code in (200, 503)
    wait_until(lambda: whole.invoke({"predict_fn": {"tell": str(told), "sleep_s": 0.8}}).status_code == 200, 20)


@pytest.mark.parametrize("function", ["input_fn", "predict_fn", "output_fn"])
def test_what_has_killed_twice_is_refused_from_then_on_without_a_death(whole: Endpoint, function: str) -> None:
    killer = {function: {"crash": True}}
    answer = whole.invoke(killer)
    assert (answer.status_code, answer.json()["error"]) == (422, "unprocessable")
    before = deaths(whole)
    began = time.monotonic()
    for _ in range(20):
        answer = whole.invoke(killer)
        assert (answer.status_code, answer.json()["error"]) == (422, "known_unprocessable")
    assert (time.monotonic() - began) / 20 < 0.1
    assert len(answer.content) < 500
    assert deaths(whole) == before
    wait_until(lambda: whole.invoke({function: {"sleep_s": 0}}).status_code == 200, 20)  # both replicas may have to come back


@http_only
def test_refusals_of_what_is_known_to_kill_are_counted_by_reason(whole: Endpoint) -> None:
    killer = {"input_fn": {"crash": "counted"}}
    assert [whole.invoke(killer).json()["error"] for _ in range(2)] == ["unprocessable", "known_unprocessable"]
    text = whole.session.get(f"{whole.url}/metrics", timeout=10).text
    (line,) = (line for line in text.splitlines() if line.startswith("multigpu_refused_total{") and "known_unproc" in line)
    assert float(line.split()[1]) >= 1


@once_is_enough
def test_a_large_one_is_known_too_and_one_that_is_only_as_long_is_served(whole: Endpoint) -> None:
    def body(end: str) -> bytes:
        return json.dumps({"input_fn": {"crash": end} if end == "bad" else {}, "padding": "x" * 8_000_000, "end": end}).encode()

    bad = body("bad")
    good = body("").ljust(len(bad))
    assert whole.invoke(bad).json()["error"] == "unprocessable"
    before = deaths(whole)
    began = time.monotonic()
    assert whole.invoke(bad).json()["error"] == "known_unprocessable"
    assert time.monotonic() - began < 1
    assert whole.invoke(good).status_code == 200
    assert deaths(whole) == before


@http_only
def test_a_part_of_a_multipart_request_is_known_by_its_own_bytes(whole: Endpoint) -> None:
    killer = json.dumps({"input_fn": {"crash": "part"}})
    assert whole.invoke(killer).status_code == 422
    before = deaths(whole)
    parts = [f"--b\r\nContent-Type: application/json\r\n\r\n{body}\r\n" for body in ("{}", killer, "{}")]
    answer = whole.invoke("".join(parts) + "--b--\r\n", "multipart/mixed; boundary=b")
    assert [line for line in answer.text.splitlines() if line.startswith("Status:")] == [
        "Status: 200 OK", "Status: 422 Unprocessable Entity", "Status: 200 OK",
    ]  # fmt: skip
    assert deaths(whole) == before


@once_is_enough
def test_an_item_of_a_list_is_known_by_what_was_fetched_for_it(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="pool").with_script("fetches").start().ready()
    killer = {"fail": "die", "value": 2}
    answers = endpoint.invoke(json.dumps([{"value": 1}, killer, {"value": 3}])).json()
    assert [answer.get("error") for answer in answers] == [None, "unprocessable", None]
    wait_until(lambda: len(endpoint.events("worker_replaced")) == 2, 20)
    answers = endpoint.invoke(json.dumps([killer, {"value": 3}])).json()
    assert [answer.get("error") for answer in answers] == ["known_unprocessable", None]
    assert endpoint.invoke(killer).json()["error"] == "known_unprocessable"  # and so it is by itself
    assert len(endpoint.events("worker_died")) == 2


@once_is_enough
def test_those_that_share_a_batch_with_one_that_kills_are_all_answered(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_MAX_BATCH_SIZE="8", MULTIGPU_PREPROCESS="pool").with_script("batches").start().ready()
    with ThreadPoolExecutor(13) as threads:
        good = [threads.submit(endpoint.invoke, {"number": i}) for i in range(12)]
        bad = threads.submit(endpoint.invoke, {"crash": True})
        answers = [each.result() for each in good]
    assert [answer.status_code for answer in answers] == [200] * 12
    assert [answer.json()["number"] for answer in answers] == list(range(12))
    assert max(answer.json()["shared_by"] for answer in answers) > 1
    assert bad.result().status_code == 422
    wait_until(lambda: len(endpoint.events("worker_died")) == 2, 10)
    assert all(event["alone"] for event in endpoint.events("request_tried_again"))


@once_is_enough
@pytest.mark.parametrize("hangs", [{"sleep_s": 3600}, {"spin": True}], ids=["sleeps", "spins with the lock held"])
def test_one_that_hangs_costs_a_pool_worker_seconds_and_others_nothing(whole: Endpoint, hangs: dict[str, Any]) -> None:
    with ThreadPoolExecutor(1) as thread:
        began = time.monotonic()
        hanging: Future[requests.Response] = thread.submit(whole.invoke, {"input_fn": hangs})
        longest_s = 0.0
        while not hanging.done():
            asked = time.monotonic()
            assert whole.invoke({}).status_code == 200
            longest_s = max(longest_s, time.monotonic() - asked)
        took = time.monotonic() - began
    assert (hanging.result().status_code, hanging.result().json()["error"]) == (422, "unprocessable")
    assert took < 2 * TASK_LIMIT_S + 3
    assert longest_s < 1
    assert whole.invoke({"input_fn": hangs}).json()["error"] == "known_unprocessable"


def found_and_replaced(endpoint: Endpoint, pid: int, name: str) -> dict[str, Any]:
    """The log's line about a worker's replacement, after it was stopped."""
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: [e for e in endpoint.events("worker_died") if e["pid"] == pid], 4)
    assert time.monotonic() - began < 3
    return wait_until(lambda: [e for e in endpoint.events("worker_replaced") if e["worker"] == name], 20)[-1]


@once_is_enough
def test_a_pool_worker_that_is_stopped_is_replaced_and_its_request_answered(whole: Endpoint, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(whole.invoke, {"input_fn": {"tell": str(tmp_path), "sleep_s": 1.2}})
        (told,) = wait_until(lambda: list(tmp_path.iterdir()), 5)
        name = next(name for name, pid in whole.worker_pids("pool-").items() if pid == int(told.name))
        replaced = found_and_replaced(whole, int(told.name), name)
        assert running.result().status_code == 200
    assert replaced["after_ms"] < 1000
    (stopped,) = (event for event in whole.events("worker_stopped") if event["worker"] == name)
    assert stopped["pid"] == int(told.name)


@once_is_enough
def test_a_replica_that_is_stopped_while_it_does_nothing_is_replaced(whole: Endpoint) -> None:
    found_and_replaced(whole, whole.worker_pids("replica-")["replica-1"], "replica-1")
    assert {whole.invoke({}).status_code for _ in range(4)} == {200}


@once_is_enough
@pytest.mark.parametrize("kind_of_worker", ["pool-", "replica-"])
def test_a_dead_pool_worker_is_back_at_once_and_a_replica_when_it_has_loaded(whole: Endpoint, kind_of_worker: str) -> None:
    beyond_loading_ms = [beyond_loading(whole, kind_of_worker) for _ in range(3)]
    assert min(beyond_loading_ms) < 1000  # the quickest: other work on these cores is no fault of ours


def beyond_loading(endpoint: Endpoint, kind_of_worker: str) -> float:
    """Kill a worker: milliseconds from its end to its replacement, by the log; of a replica those beyond its load time."""
    wait_until(lambda: all_are_back(endpoint), 20)
    replaced_before = len(endpoint.events("worker_replaced"))
    seen = endpoint.invoke({}).json()
    pid = seen["input_fn" if kind_of_worker == "pool-" else "predict_fn"]["pid"]
    os.kill(pid, signal.SIGKILL)
    replaced = wait_until(lambda: endpoint.events("worker_replaced")[replaced_before:], 20)[0]
    died = next(event for event in endpoint.events("worker_died") if event["pid"] == pid)
    assert replaced["worker"] == died["worker"]
    ready = next(event for event in reversed(endpoint.events("worker_ready")) if event["worker"] == replaced["by"])
    took = datetime.fromisoformat(replaced["time"]) - datetime.fromisoformat(died["time"])
    return took.total_seconds() * 1e3 - (ready["load_ms"] if kind_of_worker == "replica-" else 0.0)


@pytest.mark.parametrize(
    ("function", "status", "error"), [("input_fn", 413, "payload_too_large"), ("output_fn", 500, "out_of_memory")]
)
def test_one_that_needs_more_memory_than_it_may_have_is_told_so_and_costs_no_worker(
    whole: Endpoint, function: str, status: int, error: str
) -> None:
    before = deaths(whole)
    answer = whole.invoke({function: {"eat_mb": 1024}})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert whole.invoke({function: {"eat_mb": 128}}).status_code == 200
    assert deaths(whole) == before
    assert answer.json()["message"].startswith("the request needs more memory than")
    reasons = [event["reason"] for event in whole.events("request") if event.get("error") == error]
    assert "MemoryError" in reasons[-1]
