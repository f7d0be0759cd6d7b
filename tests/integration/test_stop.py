"""SIGTERM: what is in flight is answered, nothing new is taken, nothing is left."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable

from integration.endpoint import Endpoint
from support import wait_until


def test_sigterm_finishes_what_is_in_flight_and_leaves_nothing(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        running = [threads.submit(endpoint.invoke, {"predict_fn": {"sleep_s": 1.0}}) for _ in range(4)]
        wait_until(lambda: connections(endpoint) == 4, 5)
        processes = endpoint.descendants()
        endpoint.terminate()
        wait_until(lambda: endpoint.events("draining"), 5)
        late = endpoint.invoke({})
        assert (late.status_code, late.json()["error"]) == (503, "draining")
        assert [request.result().status_code for request in running] == [200] * 4
    assert endpoint.wait_exit(25) == 0
    assert [process for process in processes if process.is_running()] == []
    assert list(endpoint.temporary.iterdir()) == []


def connections(endpoint: Endpoint) -> int:
    """Front-end workers that have sent a request to the engine; a connection is made with a worker's first."""
    (engine,) = endpoint.processes("multigpu_inference.engine.server")
    return sum(str(c.laddr).endswith("engine.sock") for c in engine.net_connections("unix")) - 1  # one listens


def test_a_second_sigterm_stops_at_once(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        request = threads.submit(endpoint.invoke, {"predict_fn": {"sleep_s": 20}})
        wait_until(lambda: connections(endpoint) == 1, 5)
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


def test_a_full_queue_is_refused_at_once_with_when_to_come_again(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = (
        new_endpoint(MULTIGPU_NUM_REPLICAS="1", MULTIGPU_PREPROCESS_WORKERS="1", MULTIGPU_MAX_QUEUE_SIZE="1")
        .with_script("commands")
        .start()
        .ready()
    )
    admitted = endpoint.events("plan")[0]["admitted"]
    with concurrent.futures.ThreadPoolExecutor(admitted + 1) as threads:
        running = [threads.submit(endpoint.invoke, {"predict_fn": {"sleep_s": 0.6}}) for _ in range(admitted + 1)]
        wait_until(lambda: connections(endpoint) >= admitted + 1, 5)
        started = time.monotonic()
        answer = endpoint.invoke({})
        assert time.monotonic() - started < 0.5
        assert (answer.status_code, answer.json()["error"]) == (503, "overloaded")
        assert answer.json()["retry_after_s"] == 1
        assert answer.headers["Retry-After"] == "1"
        assert [request.result().status_code for request in running] == [200] * (admitted + 1)
    assert endpoint.invoke({}).status_code == 200
