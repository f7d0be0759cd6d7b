"""More than can be served: what is accepted stays quick, the rest is told when to come again, nothing is worked on in vain.

`test_overload_soak` is the long form, with the benchmark's `tiny`.
"""

from __future__ import annotations

import concurrent.futures
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from faults.flood import Answered, flood
from integration.endpoint import Endpoint
from integration.frontend.http.raw_connection import RawConnection, request
from integration.kinds import http_only, once_is_enough
from support import wait_until

pytestmark = pytest.mark.faults

STAY_S = 0.05
SLOW = {"predict_fn": {"sleep_s": STAY_S}}


def by_status(answers: list[Answered]) -> dict[int, list[Answered]]:
    return {status: [each for each in answers if each.status == status] for status in {each.status for each in answers}}


def test_at_five_times_what_can_be_served_as_much_is_served_and_the_rest_is_told_when_to_come_again(
    endpoint: Endpoint, kind: str
) -> None:
    admitted, queue = (endpoint.events("plan")[0][name] for name in ("admitted", "max_queue_size"))
    can = 2 / STAY_S  # two replicas, one request at a time each
    endpoint.invoke({})
    answers = by_status(flood(endpoint, SLOW, 5 * can, count=int(5 * can * 4)))
    ended = time.monotonic()
    assert endpoint.invoke({}).status_code == 200
    assert time.monotonic() - ended < 2.0
    assert set(answers) == {200, 503}
    accepted, refused = answers[200], answers[503]
    span = max(each.came for each in accepted) - min(each.due for each in accepted)
    assert len(accepted) > 0.8 * can * span
    # Everybody who was accepted had at most as many before it as may be in and wait, the front end's own queue aside.
    assert statistics.median(each.seconds for each in accepted) < 2 * (admitted + queue) / can
    assert statistics.median(each.seconds for each in refused) < 0.05
    ours = [each for each in refused if "error" in each.content]
    assert len(ours) == len(refused) or kind == "mms"  # which refuses by itself what a burst brings beyond its own queue
    for each in ours:
        assert each.content["error"] == "overloaded"
        assert 1 <= each.content["retry_after_s"] <= 60


def test_header_and_json_of_a_refusal_say_the_same(endpoint: Endpoint) -> None:
    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda _: endpoint.invoke({"predict_fn": {"sleep_s": 0.3}}), range(24)))
    refused = [answer for answer in answers if answer.status_code == 503 and "error" in answer.json()]
    assert refused
    for answer in refused:
        assert answer.headers["Retry-After"] == str(answer.json()["retry_after_s"])
        assert answer.reason == "Service Unavailable"
        assert len(answer.content) <= 500


@once_is_enough
def test_who_would_wait_past_its_deadline_is_refused_at_once_and_hardly_anybody_waits_in_vain(
    new_endpoint: Callable[..., Endpoint],
) -> None:
    settings = {"MULTIGPU_NUM_REPLICAS": "1", "MULTIGPU_MAX_QUEUE_SIZE": "1000", "MULTIGPU_REQUEST_TIMEOUT_S": "2"}
    endpoint = new_endpoint(**settings).with_script("commands").start().ready()
    command = {"predict_fn": {"sleep_s": 0.1}}  # 10 a second: 20 within the time limit
    with concurrent.futures.ThreadPoolExecutor(16) as threads:  # more than are in at a time: what that takes is measured
        assert {answer.status_code for answer in threads.map(lambda _: endpoint.invoke(command), range(24))} == {200}
        answers = by_status(flood(endpoint, command, 200, count=46))
    assert set(answers) <= {200, 503, 504}
    assert len(answers[503]) >= 15
    assert len(answers.get(504, [])) <= 6
    assert statistics.median(each.seconds for each in answers[503]) < 0.2  # and not 2 s
    assert {each.content["message"] for each in answers[503]} == {"the queue is too long for this request's time limit"}
    assert {each.content["retry_after_s"] for each in answers[503]} <= {1, 2, 3}


@pytest.fixture
def one_at_a_time(new_endpoint: Callable[..., Endpoint]) -> Endpoint:
    settings = {"MULTIGPU_NUM_REPLICAS": "1", "MULTIGPU_PREPROCESS_WORKERS": "1", "MULTIGPU_REQUEST_TIMEOUT_S": "3"}
    return new_endpoint(**settings).with_script("commands").start().ready()


def made(parent: Path, *names: str) -> list[str]:
    for name in names:
        (parent / name).mkdir()
    return [str(parent / name) for name in names]


def spared(endpoint: Endpoint) -> dict[tuple[str, str], int]:
    """By why, and by what was not begun."""
    text = requests.get(f"{endpoint.url}/metrics", timeout=10).text
    found = re.findall(r'multigpu_spared_total\{before="(\w+)",reason="(\w+)"\} (\d+)', text)
    return {(reason, before): int(count) for before, reason, count in found}


def replica_requests(endpoint: Endpoint) -> list[str]:
    return re.findall(r"multigpu_replica_requests_total.*", requests.get(f"{endpoint.url}/metrics", timeout=10).text)


def test_a_request_whose_time_is_over_while_it_waits_costs_no_replica_time(
    one_at_a_time: Endpoint, kind: str, tmp_path: Path
) -> None:
    endpoint = one_at_a_time
    holding, never = made(tmp_path, "holding", "never")
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(endpoint.invoke, {"predict_fn": {"tell": holding, "sleep_s": 2.2}})
        wait_until(lambda: list(Path(holding).iterdir()), 5)
        second = threads.submit(endpoint.invoke, {"predict_fn": {"sleep_s": 2.2}})  # begins as the first one ends
        time.sleep(0.05)
        late = endpoint.invoke({"predict_fn": {"tell": never}})
        assert first.result().status_code == 200
        assert (late.status_code, late.json()["error"]) == (504, "deadline_exceeded")
        assert second.result().status_code == 504  # while it was worked on
    wait_until(lambda: endpoint.invoke({}).status_code == 200, 5)  # behind all of them
    assert not list(Path(never).iterdir())
    if kind == "http":
        assert spared(endpoint)["deadline_exceeded", "predict_fn"] >= 1
        assert spared(endpoint)["deadline_exceeded", "output_fn"] == 1  # the second one's


@http_only  # through multi-model-server nobody is told that a client has gone
def test_a_client_that_leaves_while_it_waits_costs_no_replica_time(one_at_a_time: Endpoint, tmp_path: Path) -> None:
    endpoint = one_at_a_time
    holding, never = made(tmp_path, "holding", "never")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        first = threads.submit(endpoint.invoke, {"predict_fn": {"tell": holding, "sleep_s": 0.8}})
        wait_until(lambda: list(Path(holding).iterdir()), 5)
        counted = replica_requests(endpoint)
        body = json.dumps({"predict_fn": {"tell": never}}).encode()
        with RawConnection(endpoint.port) as connection:
            connection.send(request("application/json", body))
            wait_until(lambda: waiting_in_replica(endpoint) == 2, 5)
        wait_until(lambda: 499 in [event["status"] for event in endpoint.events("request")], 5)
        assert replica_requests(endpoint) == counted
        assert first.result().status_code == 200
    wait_until(lambda: spared(endpoint) == {("client_gone", "predict_fn"): 1}, 5)
    assert not list(Path(never).iterdir())
    summary = requests.get(f"{endpoint.url}/metrics", headers={"Accept": "application/json"}, timeout=10).json()
    assert summary["requests"]["spared"] == {"client_gone": {"predict_fn": 1}}


def waiting_in_replica(endpoint: Endpoint) -> int:
    summary = requests.get(f"{endpoint.url}/metrics", headers={"Accept": "application/json"}, timeout=10).json()
    tasks: int = summary["replicas"]["replica-0"]["in_flight"]
    return tasks
