"""Never healthy and dead: what stops or hangs ends the container soon; and what ends in order leaves nothing of it."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from integration.endpoint import SERVICES, Endpoint
from integration.kinds import http_only, mms_only, once_is_enough
from multigpu_inference.config import HTTP
from support import wait_until

pytestmark = pytest.mark.faults

ENGINE = "multigpu_inference.engine.server"
HTTP_FRONT_END = "multigpu_inference.frontend.http.server"
LAUNCHER = "multigpu_inference.frontend.model_server"
JAVA = "com.amazonaws.ml.mms.ModelServer"
WORKER = "model_service_worker"

NewEndpoint = Callable[..., Endpoint]


def front_end_parent(endpoint: Endpoint) -> int:
    """Multi-model-server's Python process, of which its workers are forks."""
    processes = endpoint.processes(WORKER)
    pids = {process.pid for process in processes}
    return next(process.pid for process in processes if process.ppid() not in pids)


def front_end_workers(endpoint: Endpoint) -> set[int]:
    parent = front_end_parent(endpoint)
    return {process.pid for process in endpoint.processes(WORKER) if process.ppid() == parent}


def left_of(endpoint: Endpoint) -> list[str]:
    """Processes and files of a container that has ended. Its shared memory has no names: it goes with the last process."""
    left = []
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            if environ.get("TMPDIR", "").startswith(str(endpoint.temporary)) or str(endpoint.temporary) in process.cmdline():
                left.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return left + [str(path) for path in endpoint.temporary.rglob("*")]


def ends(endpoint: Endpoint, exit_code: int, within_s: float) -> None:
    """The container ends by itself, and nothing of it is left."""
    processes = endpoint.descendants()
    started = time.monotonic()
    assert endpoint.wait_exit(within_s + 15) == exit_code
    assert time.monotonic() - started < within_s
    assert [process for process in processes if process.is_running()] == []
    assert left_of(endpoint) == []


# What stops


@pytest.fixture
def serving(new_endpoint: NewEndpoint) -> Endpoint:
    endpoint = new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="2").with_script("commands").start().ready()
    assert endpoint.invoke({}).status_code == 200
    return endpoint


@once_is_enough
def test_a_stopped_engine_ends_the_container(serving: Endpoint) -> None:
    os.kill(serving.processes(ENGINE)[0].pid, signal.SIGSTOP)
    ends(serving, exit_code=4, within_s=6)
    (hung,) = serving.events("process_hung")
    assert (hung["process"], hung["because"]) == ("engine", "stopped by a signal")


@http_only
def test_a_stopped_http_front_end_ends_the_container(serving: Endpoint) -> None:
    os.kill(serving.processes(HTTP_FRONT_END)[0].pid, signal.SIGSTOP)
    ends(serving, exit_code=5, within_s=6)


@mms_only
@pytest.mark.parametrize("victim", ["java", "parent", pytest.param("launcher", marks=pytest.mark.soak)])
def test_a_stopped_part_of_multi_model_server_ends_the_container(serving: Endpoint, victim: str) -> None:
    pids = {
        "launcher": lambda: serving.processes(LAUNCHER)[0].pid,
        "java": lambda: serving.processes(JAVA)[0].pid,
        "parent": lambda: front_end_parent(serving),
    }
    os.kill(pids[victim](), signal.SIGSTOP)
    ends(serving, exit_code=5, within_s=6)


@mms_only
def test_a_stopped_front_end_worker_is_replaced(serving: Endpoint) -> None:
    wait_until(lambda: len(front_end_workers(serving)) == 2, 20)
    victim = min(front_end_workers(serving))
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: victim not in front_end_workers(serving), 5)
    wait_until(lambda: len(front_end_workers(serving)) == 2, 20)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        codes = list(threads.map(lambda _: serving.invoke({}).status_code, range(20)))
    assert codes == [200] * 20
    assert serving.exit_code() is None


# What hangs


@http_only
@pytest.mark.parametrize(
    ("module", "how", "exit_code"),
    [(ENGINE, signal.SIGUSR1, 4), (ENGINE, signal.SIGUSR2, 4), (HTTP_FRONT_END, signal.SIGUSR1, 5)],
    ids=["engine-sleeps", "engine-circles", "front-end-sleeps"],
)
def test_a_process_whose_loop_hangs_ends_the_container(
    new_endpoint: NewEndpoint, module: str, how: signal.Signals, exit_code: int
) -> None:
    endpoint = new_endpoint(PYTHONPATH=str(SERVICES / "hangs")).with_script("commands").start().ready()
    os.kill(endpoint.processes(module)[0].pid, how)
    ends(endpoint, exit_code, within_s=9)
    (hung,) = endpoint.events("process_hung")
    assert hung["because"].startswith("not heard of for")


# What is to end


def tell_and_sleep(endpoint: Endpoint, folder: Path, sleep_s: float) -> requests.Response | None:
    """A request that says so when `predict_fn` works on it; None where the connection broke."""
    try:
        return endpoint.invoke({"predict_fn": {"tell": str(folder), "sleep_s": sleep_s}})
    except requests.ConnectionError:
        return None


def told(folder: Path) -> list[int]:
    """The processes that have said so."""
    return [int(path.name) for path in folder.iterdir()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "told"
    made.mkdir()
    return made


@pytest.mark.soak
@once_is_enough
def test_a_request_that_never_ends_is_cut_short_within_the_limit(new_endpoint: NewEndpoint, folder: Path) -> None:
    endpoint = new_endpoint(MULTIGPU_REQUEST_TIMEOUT_S="600").with_script("commands").start().ready()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        request = thread.submit(tell_and_sleep, endpoint, folder, 3600)
        wait_until(lambda: told(folder), 10)
        endpoint.terminate()
        ends(endpoint, exit_code=0, within_s=25)
        answer = request.result()
    assert endpoint.events("drain_cut_short")
    assert answer is None or answer.status_code == 503


def test_a_second_signal_right_after_the_first_ends_it_at_once(new_endpoint: NewEndpoint, folder: Path) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        request = thread.submit(tell_and_sleep, endpoint, folder, 30)
        wait_until(lambda: told(folder), 10)
        endpoint.terminate()
        wait_until(lambda: endpoint.events("stopping"), 5)  # signals that come together are one
        endpoint.terminate()
        ends(endpoint, exit_code=0, within_s=10)
        request.result()


@once_is_enough
def test_a_replica_that_is_being_replaced_keeps_nobody(new_endpoint: NewEndpoint) -> None:
    script = (SERVICES / "commands.py").read_text()
    slow_to_load = script.replace(
        "def model_fn(model_dir, context):\n", "def model_fn(model_dir, context):\n    time.sleep(3)\n"
    )  # fmt: skip
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="pool").with_source(slow_to_load).start().ready()
    os.kill(endpoint.worker_pids("replica-")["replica-0"], signal.SIGKILL)
    wait_until(lambda: endpoint.events("worker_died"), 5)
    endpoint.terminate()
    ends(endpoint, exit_code=0, within_s=10)


def test_a_request_that_is_being_tried_again_is_still_answered(new_endpoint: NewEndpoint, folder: Path) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        request = thread.submit(tell_and_sleep, endpoint, folder, 1.0)
        wait_until(lambda: told(folder), 10)
        os.kill(told(folder)[0], signal.SIGKILL)
        wait_until(lambda: endpoint.events("request_tried_again"), 5)
        endpoint.terminate()
        answer = request.result()
    assert answer is not None
    assert answer.status_code == 200
    ends(endpoint, exit_code=0, within_s=10)


@pytest.mark.parametrize("after", ["", "plan", "worker_ready"])
@once_is_enough
def test_it_can_be_stopped_at_any_time_of_its_start(new_endpoint: NewEndpoint, kind: str, after: str) -> None:
    endpoint = new_endpoint().with_script("commands").start()
    if after:
        wait_until(lambda: endpoint.events(after), 20)
    else:
        first = HTTP_FRONT_END if kind == HTTP else ENGINE
        wait_until(lambda: endpoint.processes(first), 10)
    endpoint.terminate()
    ends(endpoint, exit_code=0, within_s=10)
