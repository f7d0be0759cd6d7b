"""`kill -9`, a request that kills, a hang: each costs what was in flight at most, and the next hundred requests succeed."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from integration.endpoint import SERVICES, Endpoint
from integration.kinds import mms_only, once_is_enough
from multigpu_inference.config import HTTP
from support import wait_until

pytestmark = pytest.mark.faults


@pytest.fixture
def healthy(endpoint: Endpoint) -> Endpoint:
    """The shared endpoint, with all that earlier tests killed back in place."""
    endpoint.invoke({})
    return endpoint


def all_succeed(endpoint: Endpoint, count: int = 100) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        codes = list(threads.map(lambda _: endpoint.invoke({}).status_code, range(count)))
    assert codes == [200] * count


def kill_while_requests_run(endpoint: Endpoint, function: str, victim: int, told: Path) -> list[requests.Response]:
    """Answers of four requests, during which a process is killed that is in a function of one of them."""
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        command = {function: {"tell": str(told), "sleep_s": 0.7}}
        running = [threads.submit(endpoint.invoke, command) for _ in range(4)]
        wait_until((told / str(victim)).exists, 5)
        os.kill(victim, signal.SIGKILL)
        return [request.result() for request in running]


def test_killed_pool_worker(healthy: Endpoint, tmp_path: Path) -> None:
    before = healthy.worker_pids("pool-")
    victim = healthy.invoke({}).json()["input_fn"]["pid"]
    answers = kill_while_requests_run(healthy, "input_fn", victim, tmp_path)
    assert [answer.status_code for answer in answers] == [200] * 4  # tried again, in another worker
    wait_until(lambda: len(healthy.worker_pids("pool-")) > len(before), 10)  # the spare took over: a new spare
    all_succeed(healthy)
    assert victim not in {healthy.invoke({}).json()["input_fn"]["pid"] for _ in range(4)}


def test_killed_replica_worker(healthy: Endpoint, tmp_path: Path) -> None:
    victim = healthy.worker_pids("replica-")["replica-0"]
    answers = kill_while_requests_run(healthy, "predict_fn", victim, tmp_path)
    assert [answer.status_code for answer in answers] == [200] * 4  # tried again, on the other replica
    wait_until(lambda: healthy.worker_pids("replica-")["replica-0"] != victim, 10)
    all_succeed(healthy)
    pids = {healthy.invoke({}).json()["predict_fn"]["pid"] for _ in range(4)}
    assert pids == set(healthy.worker_pids("replica-").values())


@mms_only
def test_killed_front_end_worker(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="2").with_script("commands").start().ready()
    wait_until(lambda: len(front_end_workers(endpoint)) == 2, 20)
    workers, told = front_end_workers(endpoint), tmp_path / "told"
    told.mkdir()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        command = {"predict_fn": {"tell": str(told), "sleep_s": 0.7}}
        running = [threads.submit(endpoint.invoke, command) for _ in range(2)]
        wait_until(lambda: len(list(told.iterdir())) == 2, 5)  # both workers wait, each for another replica
        os.kill(min(workers), signal.SIGKILL)
        codes = sorted(request.result().status_code for request in running)
    assert codes[0] == 200
    assert codes[1] >= 500
    all_succeed(endpoint)
    wait_until(lambda: len(front_end_workers(endpoint)) == 2, 20)
    assert min(workers) not in front_end_workers(endpoint)


def front_end_workers(endpoint: Endpoint) -> set[int]:
    """Forks of multi-model-server's Python parent."""
    processes = endpoint.processes("model_service_worker")
    pids = {process.pid for process in processes}
    return {process.pid for process in processes if process.ppid() in pids}


def test_a_request_that_kills_its_pool_worker_twice_is_answered_422(healthy: Endpoint) -> None:
    answer = healthy.invoke({"input_fn": {"crash": True}})
    assert (answer.status_code, answer.json()["error"]) == (422, "unprocessable")
    all_succeed(healthy)


def test_a_request_that_kills_its_replica_is_answered_and_both_come_back(healthy: Endpoint) -> None:
    before = healthy.worker_pids("replica-")
    answer = healthy.invoke({"predict_fn": {"crash": True}})
    assert (answer.status_code, answer.json()["error"]) == (422, "unprocessable")
    wait_until(lambda: not set(before.values()) & set(healthy.worker_pids("replica-").values()), 20)
    all_succeed(healthy)


@once_is_enough
def test_a_hung_pool_worker_is_replaced(healthy: Endpoint) -> None:
    answer = healthy.invoke({"input_fn": {"sleep_s": 3600}})
    assert answer.status_code == 504
    wait_until(lambda: healthy.events("worker_hung"), 10)
    all_succeed(healthy)


def test_a_killed_engine_takes_the_container_with_it(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    kill_and_all_ends(endpoint, endpoint.processes("multigpu_inference.engine.server")[0].pid, exit_code=4)


def test_a_killed_front_end_takes_the_container_with_it(new_endpoint: Callable[..., Endpoint], kind: str) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    module = "multigpu_inference.frontend.http.server" if kind == HTTP else "multigpu_inference.frontend.model_server"
    kill_and_all_ends(endpoint, endpoint.processes(module)[0].pid, exit_code=5)


@mms_only
def test_the_killed_parent_of_front_end_workers_takes_the_container_with_it(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    workers = front_end_workers(endpoint)
    parent = min(p.pid for p in endpoint.processes("model_service_worker") if p.pid not in workers)
    kill_and_all_ends(endpoint, parent, exit_code=5)


@mms_only
def test_killed_java_takes_the_container_with_it(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    kill_and_all_ends(endpoint, endpoint.processes("com.amazonaws.ml.mms.ModelServer")[0].pid, exit_code=5)


def kill_and_all_ends(endpoint: Endpoint, victim: int, exit_code: int) -> None:
    processes = endpoint.descendants()
    os.kill(victim, signal.SIGKILL)
    assert endpoint.wait_exit(5.0) == exit_code
    assert [process for process in processes if process.is_running()] == []


@once_is_enough
def test_with_one_replica_requests_are_refused_while_it_comes_back(new_endpoint: Callable[..., Endpoint]) -> None:
    slow_to_load = (SERVICES / "commands.py").read_text().replace(
        "def model_fn(model_dir, context):\n", "def model_fn(model_dir, context):\n    time.sleep(2)\n"
    )  # fmt: skip
    endpoint = new_endpoint(MULTIGPU_NUM_REPLICAS="1", MULTIGPU_PREPROCESS="pool").with_source(slow_to_load).start().ready()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        killing = thread.submit(endpoint.invoke, {"predict_fn": {"crash": True}})
        wait_until(lambda: endpoint.events("worker_died"), 10)
        refused = endpoint.invoke({})
        assert refused.status_code == 503
        assert refused.json()["retry_after_s"] == 5
        assert refused.headers["Retry-After"] == "5"
        # It was tried once more on the replica that came back, alone, and is known for what it is.
        assert killing.result().status_code == 422
    wait_until(lambda: endpoint.invoke({}).status_code == 200, 20)


@once_is_enough
def test_a_killing_request_costs_the_others_nothing(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_NUM_REPLICAS="4").with_script("commands").start().ready()
    with concurrent.futures.ThreadPoolExecutor(9) as threads:
        good = [threads.submit(endpoint.invoke, {"predict_fn": {"sleep_s": 0.05}}) for _ in range(40)]
        killing = threads.submit(endpoint.invoke, {"predict_fn": {"crash": True}})
        codes = [request.result().status_code for request in good]
    assert codes == [200] * 40
    assert killing.result().status_code == 422
    wait_until(lambda: len(endpoint.events("worker_died")) == 2, 10)


@once_is_enough
def test_good_requests_do_not_wait_for_what_killing_ones_have_cost(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    for number in range(5):
        assert endpoint.invoke({"input_fn": {"crash": number}}).status_code == 422
        started = time.monotonic()
        assert [endpoint.invoke({}).status_code for _ in range(2)] == [200, 200]
        assert time.monotonic() - started < 2
    assert not endpoint.events("worker_given_up")


@once_is_enough
def test_a_lost_device_costs_its_replica_and_the_request_is_tried_on_another(healthy: Endpoint) -> None:
    before = set(healthy.worker_pids("replica-").values())
    assert healthy.invoke({"predict_fn": {"sticky": True}}).status_code == 422  # every device that it meets is lost
    wait_until(lambda: not before & set(healthy.worker_pids("replica-").values()), 10)
    assert [event["reason"] for event in healthy.events("worker_died")][-2:] == ["exit code 7"] * 2
    all_succeed(healthy)


@once_is_enough
def test_no_client_gets_anothers_data_through_a_global(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("shares_a_global").start().ready()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        names = [f"client-{i}" for i in range(40)]
        answers = list(threads.map(lambda name: endpoint.invoke({"who": name}).json(), names))
    assert [(answer["asked_by"], answer["answer_for"]) for answer in answers] == [(name, name) for name in names]
    assert {event["runs_in"] for event in endpoint.events("function_placed")} == {"replica"}


@pytest.mark.parametrize("status", [404, 429])
def test_a_status_that_the_script_chose_arrives(healthy: Endpoint, status: int) -> None:
    answer = healthy.invoke({"predict_fn": {"status": status}})
    assert (answer.status_code, answer.json()["message"]) == (status, "as told")
