"""`fetch_fn` and `store_fn` in their process of their own, and requests of several inputs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from integration.endpoint import Endpoint
from integration.kinds import http_only, once_is_enough
from support import wait_until


@pytest.fixture(scope="module")
def fetching(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    # Its answers name processes, which a trial would take for a dependence on them.
    environment = {"MULTIGPU_FRONT_END": kind, "MULTIGPU_PREPROCESS": "pool"}
    endpoint = Endpoint(tmp_path_factory.mktemp("fetching"), **environment).with_script("fetches")
    try:
        yield endpoint.start().ready()
    finally:
        endpoint.clean_up()


def ask_many(endpoint: Endpoint, items: Any) -> requests.Response:
    return endpoint.invoke(json.dumps(items))


def hops(answer: requests.Response) -> dict[str, str]:
    attributes = answer.headers["X-Amzn-SageMaker-Custom-Attributes"].strip()
    return dict(pair.split("=", 1) for pair in attributes.split(";"))


def test_what_was_fetched_takes_the_bodys_place(fetching: Endpoint) -> None:
    answer = fetching.invoke({"value": "a", "size": 5})
    found = answer.json()
    assert (found["value"], found["sum"]) == ("a", 35)
    (fetcher,) = fetching.worker_pids("fetch-").values()
    assert found["fetch_pid"] == fetcher
    assert found["input_pid"] in fetching.worker_pids("pool-").values()
    assert list(hops(answer))[2:5] == ["queue_ms", "fetch_ms", "copy_ms"]


def test_large_bytes_come_through(fetching: Endpoint) -> None:
    assert fetching.invoke({"size": 5_000_000}).json()["sum"] == 35_000_000


def test_other_content_types_do_not_go_through_it(fetching: Endpoint) -> None:
    answer = fetching.invoke(b"plain", "application/x-plain")
    assert answer.json() == {"value": "plain", "sum": 0, "body_type": "bytearray", "accept": "application/json"}
    assert "fetch_ms" not in hops(answer)


def test_an_answer_that_is_to_be_stored_goes_to_store_fn(fetching: Endpoint) -> None:
    answer = fetching.invoke({"value": "a", "store": "there"})
    found = answer.json()
    assert (found["stored"], found["type"], found["value"]) == ("there", "application/json", "a")
    assert [found["store_pid"]] == list(fetching.worker_pids("fetch-").values())
    assert list(hops(answer))[-1] == "store_ms"


def test_a_form_with_fields_goes_through_it_whatever_its_files_type(fetching: Endpoint) -> None:
    files: dict[str, Any] = {"picture": ("a.bin", b"xyz", "image/png"), "value": (None, "v"), "store": (None, "s")}
    answer = requests.post(f"{fetching.url}/invocations", files=files, timeout=20)
    assert answer.status_code == 200, answer.text
    assert answer.json()["form"] == {"value": "v", "store": "s"}
    assert answer.json()["value"] == "v"


def test_a_form_of_one_text_field_is_its_field(fetching: Endpoint) -> None:
    answer = requests.post(f"{fetching.url}/invocations", files={"value": (None, "v")}, timeout=20)
    assert answer.json()["value"] == "v"
    assert "fetch_ms" in hops(answer)


def test_a_list_is_answered_in_order_item_by_item(fetching: Endpoint) -> None:
    items = [{"value": i, "sleep": 0.0, "size": i * 40_000} for i in range(12)]
    answer = ask_many(fetching, items)
    assert answer.headers["Content-Type"] == "application/json"
    assert [found["value"] for found in answer.json()] == list(range(12))
    assert [found["sum"] for found in answer.json()] == [i * 280_000 for i in range(12)]
    assert {found["accept"] for found in answer.json()} == {"application/json"}
    replicas = [event["replica"] for event in fetching.events("request") if event["request_id"].rpartition("-")[0]]
    assert set(replicas[-12:]) == {"0", "1"}


def test_items_that_fail_fail_alone(fetching: Endpoint) -> None:
    items = [
        {"value": 0},
        {"bad": "x"},
        {"fail": "y"},
        {"value": 3, "store": "s"},
        {"value": 4, "store": "fail"},
        {"value": "text"},
    ]
    good, bad, failed, stored, unstored, no_json = ask_many(fetching, items).json()
    assert good["value"] == 0
    assert (bad["status"], bad["error"], bad["message"]) == (400, "bad_request", "bad: x")
    assert (failed["status"], failed["error"]) == (500, "function_failed")
    assert "y" not in json.dumps(failed)
    assert stored["stored"] == "s"
    assert (unstored["status"], unstored["message"]) == (400, "cannot be stored")
    assert (no_json["status"], no_json["error"]) == (500, "function_failed")
    assert bad["request_id"].endswith("-1")


@pytest.mark.parametrize(("items", "says"), [([], "1 to 1000"), ([{"value": 1}] * 1001, "1 to 1000")])
def test_a_list_has_at_least_one_item_and_not_too_many(fetching: Endpoint, items: Any, says: str) -> None:
    answer = ask_many(fetching, items)
    assert (answer.status_code, says in answer.json()["message"]) == (400, True)


def test_a_request_that_cannot_be_read_is_refused_as_fetch_fn_says(fetching: Endpoint) -> None:
    answer = fetching.invoke({"bad": "no such thing"})
    assert (answer.status_code, answer.json()["message"]) == (400, "bad: no such thing")


def test_slow_sources_do_not_keep_out_requests_that_need_none(fetching: Endpoint) -> None:
    (plan,) = fetching.events("plan")
    at_a_time, admitted = plan["fetching"], plan["admitted"]
    assert at_a_time <= admitted / 2
    with ThreadPoolExecutor(40) as threads:
        slow = [threads.submit(fetching.invoke, {"value": 1, "sleep": 2.0}) for _ in range(2 * at_a_time + 3)]
        wait_until(lambda: sum(each.done() for each in slow) == 3, 5)  # those for whom there is no place to wait
        started = time.monotonic()
        plain = [threads.submit(fetching.invoke, b"plain", "application/x-plain") for _ in range(admitted)]
        assert {each.result().status_code for each in plain} == {200}
        assert not all(each.done() for each in slow)
        assert time.monotonic() - started < 2
        assert sorted(each.result().status_code for each in slow) == [200] * 2 * at_a_time + [503] * 3


@http_only
def test_clients_that_leave_do_not_keep_others_from_fetching_and_storing(fetching: Endpoint, tmp_path: Path) -> None:
    (plan,) = fetching.events("plan")
    for _ in range(plan["fetching"]):
        with pytest.raises(requests.Timeout):
            requests.post(f"{fetching.url}/invocations", json={"value": 1, "sleep": 3.0}, timeout=0.1)
    with ThreadPoolExecutor(2) as threads:
        waits = threads.submit(fetching.invoke, {"value": 1})  # for a thread, which those that left still have
        started = time.monotonic()
        assert fetching.invoke(b"plain", "application/x-plain").status_code == 200
        assert time.monotonic() - started < 1
        assert waits.result().status_code == 200


@once_is_enough
def test_a_fetch_worker_that_is_killed_costs_no_request(fetching: Endpoint) -> None:
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(fetching.invoke, {"value": i, "sleep": 1.5}) for i in range(4)]
        (pid,) = fetching.worker_pids("fetch-").values()
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        assert [each.result().json()["value"] for each in running] == [0, 1, 2, 3]
    assert list(fetching.worker_pids("fetch-").values()) != [pid]


@once_is_enough
def test_a_request_that_ends_the_fetch_worker_once_is_answered(fetching: Endpoint, tmp_path: Path) -> None:
    assert fetching.invoke({"value": 1, "die": str(tmp_path / "died")}).json()["value"] == 1


@once_is_enough
@pytest.mark.parametrize("way", ["die", pytest.param("store", marks=pytest.mark.slow)])
def test_a_request_that_always_ends_the_fetch_worker_is_503_and_others_go_on(fetching: Endpoint, way: str) -> None:
    answer = fetching.invoke({"value": 1, way: {"die": "always", "store": "die"}[way]})
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    wait_until(lambda: fetching.invoke({"value": 2}).status_code == 200, 20)


@once_is_enough
def test_an_item_that_ends_replicas_is_422_and_the_others_are_answered(fetching: Endpoint) -> None:
    first, killer, last = ask_many(fetching, [{"value": 1}, {"fail": "die"}, {"value": 3}]).json()
    assert (first["value"], last["value"]) == (1, 3)
    assert (killer["status"], killer["error"]) == (422, "unprocessable")


@once_is_enough
def test_a_list_that_is_too_slow_is_answered_as_far_as_it_came(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_REQUEST_TIMEOUT_S="3")
    endpoint.with_source(
        "import json, time\n"
        "from multigpu_inference import Bulk\n"
        "def model_fn(d): return None\n"
        "def fetch_fn(body, content_type): return Bulk(json.loads(body))\n"
        "def input_fn(data, content_type): time.sleep(data); return data\n"
        "def predict_fn(data, model): return data\n"
        "def output_fn(data, accept): return json.dumps(data)\n"
        "def sample_input(): return '[0]', 'application/json'\n"
    ).start().ready()
    done, slow = ask_many(endpoint, [0, 10]).json()
    assert done == 0
    assert (slow["status"], slow["error"]) == (504, "deadline_exceeded")


@once_is_enough
def test_the_items_that_do_not_fit_an_answer_any_more_are_errors_in_their_places(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(SAGEMAKER_MAX_PAYLOAD_IN_MB="1", MULTIGPU_PREPROCESS="pool").with_script("fetches").start().ready()
    answer = ask_many(endpoint, [{"value": "x", "repeat": 300_000}] * 4)
    assert answer.status_code == 200
    assert sorted(found.get("error", "") for found in answer.json()) == ["", "", "", "response_too_large"]


@once_is_enough
def test_a_list_in_flight_is_finished_when_the_container_stops(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="pool").with_script("fetches").start().ready()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(ask_many, endpoint, [{"value": i, "sleep": 0.3} for i in range(4)])
        time.sleep(0.6)  # the first has begun
        endpoint.terminate()
        assert [found["value"] for found in running.result().json()] == [0, 1, 2, 3]
    assert endpoint.wait_exit(25) == 0


@http_only
def test_a_client_that_leaves_costs_nothing_more(fetching: Endpoint) -> None:
    with pytest.raises(requests.Timeout):
        requests.post(f"{fetching.url}/invocations", json=[{"value": "left", "sleep": 0.2}] * 20, timeout=0.5)
    left = [event for event in fetching.events("request") if event["status"] == 499]
    wait_until(lambda: len([e for e in fetching.events("request") if e["status"] == 499]) > len(left), 10)
    assert fetching.invoke({"value": 2}).json()["value"] == 2


@http_only
def test_the_metrics_know_the_fetch_worker_and_each_item(fetching: Endpoint) -> None:
    text = requests.get(f"{fetching.url}/metrics", timeout=10).text
    assert 'multigpu_worker_up{worker="fetch-0"} 1.0' in text
    figures = requests.get(f"{fetching.url}/metrics", headers={"Accept": "application/json"}, timeout=10).json()
    before = figures["requests"]["total"], figures["hops"]["fetch"]["requests"]
    ask_many(fetching, [{"value": 1}, {"value": 2}])
    figures = requests.get(f"{fetching.url}/metrics", headers={"Accept": "application/json"}, timeout=10).json()
    # Two requests that were fetched; the list itself is none beside them.
    assert (figures["requests"]["total"], figures["hops"]["fetch"]["requests"]) == (before[0] + 2, before[1] + 2)


@once_is_enough
@pytest.mark.parametrize("preprocess", ["auto", "replica"])
def test_wherever_input_fn_runs_it_is_given_what_was_fetched(new_endpoint: Callable[..., Endpoint], preprocess: str) -> None:
    endpoint = new_endpoint(MULTIGPU_PREPROCESS=preprocess)
    endpoint.with_source(
        "import json, numpy as np\n"
        "def model_fn(d): return 2\n"
        "def fetch_fn(body, content_type): return np.full(json.loads(body), 3, np.uint8)\n"
        "def input_fn(data, content_type):\n"
        "    data += 1\n"  # in place: another run of it must not see that
        "    return data\n"
        "def predict_fn(data, model): return int(data.sum(dtype=int)) * model\n"
        "def output_fn(data, accept): return json.dumps(data)\n"
    ).start().ready()
    assert [endpoint.invoke(str(size)).json() for size in (100_000, 3, 200_000)] == [800_000, 24, 1_600_000]
    place = "replica" if preprocess == "replica" else "pool"
    assert {e["runs_in"] for e in endpoint.events("function_placed")} <= {place}
