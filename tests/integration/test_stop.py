"""SIGTERM: what is in flight is answered, nothing new is taken, nothing is left."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from pathlib import Path

import requests

from integration.endpoint import Endpoint
from support import wait_until


class Told:
    """Folders in which functions of the script say that they have been called, one for each request."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folders = [folder / f"told-{number}" for number in range(count)]
        for each in self._folders:
            each.mkdir()

    def commands(self, function: str, number: int, sleep_s: float) -> dict[str, object]:
        """A request whose `function` says so, and whose `predict_fn` takes a time."""
        telling = {"tell": str(self._folders[number])}
        sleeping = {"sleep_s": sleep_s}
        return {"predict_fn": telling | sleeping} if function == "predict_fn" else {function: telling, "predict_fn": sleeping}

    def all(self) -> bool:
        return all(any(folder.iterdir()) for folder in self._folders)


def test_sigterm_finishes_what_is_in_flight_and_leaves_nothing(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    told = Told(tmp_path, 4)
    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        running = [threads.submit(endpoint.invoke, told.commands("input_fn", number, 1.0)) for number in range(4)]
        wait_until(told.all, 5)
        processes = endpoint.descendants()
        endpoint.terminate()
        wait_until(lambda: endpoint.events("draining"), 5)
        late = endpoint.invoke({})
        assert (late.status_code, late.json()["error"]) == (503, "draining")
        assert [request.result().status_code for request in running] == [200] * 4
    assert endpoint.wait_exit(25) == 0
    assert [process for process in processes if process.is_running()] == []
    assert list(endpoint.temporary.iterdir()) == []


def test_a_second_sigterm_stops_at_once(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    told = Told(tmp_path, 1)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        request = threads.submit(endpoint.invoke, told.commands("predict_fn", 0, 20.0))
        wait_until(told.all, 5)
        endpoint.terminate()
        wait_until(lambda: endpoint.events("draining"), 5)
        endpoint.terminate()
        started = time.monotonic()
        assert endpoint.wait_exit(10) == 0
        assert time.monotonic() - started < 8
        request.exception()


def test_sigterm_while_starting(new_endpoint: Callable[..., Endpoint]) -> None:
    slow = "import time\ndef model_fn(d): time.sleep(60)\ndef transform_fn(model, body, content_type, accept): ..."
    endpoint = new_endpoint().with_source(slow).start()
    wait_until(lambda: endpoint.events("plan"), 10)
    processes = endpoint.descendants()
    endpoint.terminate()
    assert endpoint.wait_exit(10) == 0
    wait_until(lambda: not [process for process in processes if process.is_running()], 5)


def test_a_full_queue_is_refused_at_once_with_when_to_come_again(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    settings = {"MULTIGPU_NUM_REPLICAS": "1", "MULTIGPU_PREPROCESS_WORKERS": "1", "MULTIGPU_MAX_QUEUE_SIZE": "1"}
    endpoint = new_endpoint(**settings).with_script("commands").start().ready()
    admitted = endpoint.events("plan")[0]["admitted"]
    told = Told(tmp_path, admitted)

    def ask() -> tuple[float, requests.Response]:
        started = time.monotonic()
        answer = endpoint.invoke({})
        return time.monotonic() - started, answer

    with concurrent.futures.ThreadPoolExecutor(admitted + 3) as threads:
        running = [threads.submit(endpoint.invoke, told.commands("input_fn", number, 0.6)) for number in range(admitted)]
        wait_until(told.all, 5)
        asked = [threads.submit(ask) for _ in range(3)]  # one of them waits in the queue
        answers = [request.result() for request in asked]
        assert [request.result().status_code for request in running] == [200] * admitted
    assert sorted(answer.status_code for _, answer in answers) == [200, 503, 503]
    for seconds, answer in answers:
        if answer.status_code == 503:
            assert seconds < 0.5
            assert answer.json()["error"] == "overloaded"
            assert answer.json()["retry_after_s"] == 1
            assert answer.headers["Retry-After"] == "1"
    assert endpoint.invoke({}).status_code == 200
