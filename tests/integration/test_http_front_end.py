"""What the HTTP front end promises beyond multi-model-server, with the whole container behind it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from integration.endpoint import SERVICES, Endpoint
from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http.test_bulk import BULK, answers, bulk, part
from integration.kinds import http_only
from support import wait_until

pytestmark = http_only

JSON = "application/json"
# Loads slowly, so that a replica that is gone is seen to be gone.
SLOW_TO_LOAD = (SERVICES / "commands.py").read_text().replace(
    "def model_fn(model_dir, context):\n", "def model_fn(model_dir, context):\n    time.sleep(2)\n"
)  # fmt: skip


def ping(endpoint: Endpoint) -> tuple[int, dict[str, object]]:
    answer = requests.get(f"{endpoint.url}/ping", timeout=5)
    return answer.status_code, answer.json()


def commands(**functions: object) -> bytes:
    return request(JSON, json.dumps(functions).encode())


def folder(parent: Path, name: str) -> str:
    (parent / name).mkdir()
    return str(parent / name)


def told(path: str) -> bool:
    return any(Path(path).iterdir())


def test_ping_says_so_while_the_model_loads_and_when_it_is_there(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="pool").with_source(SLOW_TO_LOAD).start()
    wait_until(lambda: endpoint.events("plan"), 20)
    assert ping(endpoint) == (503, {"status": "starting"})
    refused = endpoint.invoke({})
    assert (refused.status_code, refused.json()["error"]) == (503, "unavailable")
    endpoint.ready()
    assert ping(endpoint) == (200, {"status": "healthy", "healthy_replicas": 2, "num_replicas": 2})


def test_ping_is_503_below_the_least_number_of_replicas_and_200_again(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_MIN_REPLICAS="2", MULTIGPU_PREPROCESS="pool").with_source(SLOW_TO_LOAD).start().ready()
    os.kill(endpoint.worker_pids("replica-")["replica-0"], signal.SIGKILL)
    wait_until(lambda: ping(endpoint)[0] == 503, 5)
    assert ping(endpoint)[1] == {"status": "below_minimum", "healthy_replicas": 1, "num_replicas": 2}
    assert endpoint.invoke({}).status_code == 200  # the other one serves
    wait_until(lambda: ping(endpoint)[0] == 200, 20)


def test_with_one_replica_of_two_ping_stays_200_where_one_is_enough(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="pool").with_source(SLOW_TO_LOAD).start().ready()
    os.kill(endpoint.worker_pids("replica-")["replica-0"], signal.SIGKILL)
    wait_until(lambda: ping(endpoint)[1]["healthy_replicas"] == 1, 5)
    assert ping(endpoint)[0] == 200


def test_more_replicas_asked_for_than_there_are_stop_the_start(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_MIN_REPLICAS="3").with_script("commands").start()
    assert endpoint.wait_exit(30) == 2
    assert "MULTIGPU_MIN_REPLICAS" in endpoint.log.read_text()


def test_ping_is_503_while_it_drains(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    begun = folder(tmp_path, "begun")
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        running = thread.submit(endpoint.invoke, {"predict_fn": {"tell": begun, "sleep_s": 1.5}})
        wait_until(lambda: told(begun), 5)
        endpoint.terminate()
        wait_until(lambda: ping(endpoint) == (503, {"status": "draining", "healthy_replicas": 2, "num_replicas": 2}), 5)
        assert running.result().status_code == 200
    assert endpoint.wait_exit(20) == 0


def test_ping_is_quick_with_five_times_the_load_that_can_be_served(endpoint: Endpoint) -> None:
    sleeping = commands(predict_fn={"sleep_s": 0.2})  # two replicas: 10 requests/s, 20 where each works on two at a time
    stop = threading.Event()
    clients: list[RawConnection] = []

    def offer() -> None:
        while not stop.wait(0.01):
            clients.append(RawConnection(endpoint.port).send(sleeping))

    load = threading.Thread(target=offer)
    load.start()
    try:
        wait_until(lambda: len(clients) > 50, 10)
        # The cores are shared with all that runs beside this test: one quiet window of three is enough.
        windows = [ping_times_ms(endpoint, 60) for _ in range(3)]
        refused = endpoint.invoke({})
    finally:
        stop.set()
        load.join()
        for client in clients:
            client.close()
    assert refused.status_code in (200, 503)
    assert any(statistics.median(times) < 50 and statistics.quantiles(times, n=20)[-1] < 100 for times in windows), windows
    wait_until(lambda: endpoint.invoke({}).status_code == 200, 10)
    statuses = {event["status"] for event in endpoint.events("request")}
    assert {200, 503} <= statuses  # it was indeed more than could be served


def ping_times_ms(endpoint: Endpoint, count: int) -> list[float]:
    times = []
    with RawConnection(endpoint.port) as connection:
        for _ in range(count):
            started = time.perf_counter()
            assert connection.ask(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
            times.append((time.perf_counter() - started) * 1e3)
            time.sleep(0.01)
    return times


def last_request(endpoint: Endpoint, count: int) -> dict[str, object]:
    """The log's line about the next request after so many."""
    return wait_until(lambda: endpoint.events("request")[count:], 10)[0]


def test_a_client_that_leaves_while_predict_fn_runs_costs_no_later_function(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.invoke({})
    begun, later, before = folder(tmp_path, "begun"), folder(tmp_path, "later"), len(endpoint.events("request"))
    with RawConnection(endpoint.port) as connection:
        connection.send(commands(predict_fn={"tell": begun, "sleep_s": 0.5}, output_fn={"tell": later}))
        wait_until(lambda: told(begun), 5)
    line = last_request(endpoint, before)
    assert (line["status"], line["error"]) == (499, "client_gone")
    assert [endpoint.invoke({}).status_code for _ in range(4)] == [200] * 4  # both replicas have finished it and go on
    assert not told(later)


def test_a_client_that_leaves_while_it_waits_costs_nothing_at_all(
    new_endpoint: Callable[..., Endpoint], tmp_path: Path
) -> None:
    settings = {"MULTIGPU_NUM_REPLICAS": "1", "MULTIGPU_PREPROCESS_WORKERS": "1", "MULTIGPU_MAX_QUEUE_SIZE": "2"}
    endpoint = new_endpoint(**settings).with_script("commands").start().ready()
    admitted = endpoint.events("plan")[0]["admitted"]
    begun = [folder(tmp_path, f"begun-{number}") for number in range(admitted)]
    never = folder(tmp_path, "never")
    with concurrent.futures.ThreadPoolExecutor(admitted) as threads:
        running = [
            threads.submit(endpoint.invoke, {"input_fn": {"tell": path}, "predict_fn": {"sleep_s": 1.7}}) for path in begun
        ]
        wait_until(lambda: all(told(path) for path in begun), 5)
        for _ in range(4):  # more than could wait, were their places not free again
            before = len(endpoint.events("request"))
            with RawConnection(endpoint.port) as connection:
                connection.send(commands(input_fn={"tell": never}))
                connection.socket.settimeout(0.1)
                with pytest.raises(TimeoutError):  # it waits
                    connection.socket.recv(1)
            wait_until(lambda: 499 in [e["status"] for e in endpoint.events("request")[before:]], 5)  # noqa: B023
        assert [request.result().status_code for request in running] == [200] * admitted
    assert endpoint.invoke({}).status_code == 200
    assert not told(never)


def test_a_client_that_leaves_while_it_sends_never_reaches_the_script(endpoint: Endpoint, tmp_path: Path) -> None:
    never, before = folder(tmp_path, "never"), len(endpoint.events("request"))
    with RawConnection(endpoint.port) as connection:
        connection.send(commands(input_fn={"tell": never})[:-5])
    assert last_request(endpoint, before)["status"] == 499
    assert endpoint.invoke({}).status_code == 200
    assert not told(never)


def test_an_arena_of_a_client_that_has_left_is_nobody_elses(new_endpoint: Callable[..., Endpoint]) -> None:
    """A worker that is still busy with it writes late; the next request has another arena."""
    endpoint = new_endpoint(MULTIGPU_PREPROCESS="pool").with_script("writes_late").start().ready()
    binary = "application/octet-stream"
    endpoint.invoke(bytes([0, 1]) + bytes(100_000), binary)
    for number in range(1, 6):
        before = len(endpoint.events("request"))
        with RawConnection(endpoint.port) as connection:
            connection.send(request(binary, bytes([5, 255]) + bytes(100_000)))
            time.sleep(0.1)  # on its way, wherever that is
        assert last_request(endpoint, before)["status"] == 499
        answer = endpoint.invoke(bytes([7, number]) + bytes(100_000), binary)
        assert answer.content == bytes([number]) * 300_000


def test_a_bulk_request_uses_all_replicas_and_streams(endpoint: Endpoint) -> None:
    parts = [part(JSON, json.dumps({"predict_fn": {"sleep_s": 0.3}}).encode(), Content_ID=f"<{n}@x>") for n in range(6)]
    # It need not be the first that a replica gets: parts are decoded side by side. But at most one is ahead of it there.
    parts[0] = part(JSON, b"{}", Content_ID="<0@x>")
    parts[2] = part(JSON, json.dumps({"predict_fn": {"status": 422}}).encode())
    parts[4] = part("text/csv", b"a,b")
    with RawConnection(endpoint.port) as connection:
        started = time.monotonic()
        connection.send(request(BULK, bulk(*parts)))
        _, headers = connection.head()
        body = connection.chunk()
        first_s = time.monotonic() - started
        while chunk := connection.chunk():
            body += chunk
        all_s = time.monotonic() - started
    given = answers(headers, body)
    assert [each.headers["status"].split()[0] for each in given] == ["200", "200", "422", "200", "415", "200"]
    assert [each.headers.get("content-id") for each in given] == ["<0@x>", "<1@x>", None, "<3@x>", None, "<5@x>"]
    replicas = {json.loads(each.body)["predict_fn"]["replica"] for each in given if each.headers["status"] == "200 OK"}
    assert replicas == {0, 1}
    assert first_s < all_s - 0.1


def test_metrics_are_prometheus_text(endpoint: Endpoint) -> None:
    endpoint.invoke({})
    answer = requests.get(f"{endpoint.url}/metrics", timeout=5)
    assert answer.status_code == 200
    families = list(text_string_to_metric_families(answer.text))
    assert families
    assert len({family.name for family in families}) == len(families)


def test_batch_transform_is_told_what_it_may_send(endpoint: Endpoint) -> None:
    told = requests.get(f"{endpoint.url}/execution-parameters", timeout=5).json()
    assert told == {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 25}
