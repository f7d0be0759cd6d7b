"""Large bodies through shared memory: every byte arrives, and nothing stays open, whoever dies on the way."""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from integration.endpoint import Endpoint
from integration.kinds import once_is_enough
from multigpu_inference.config import HTTP
from support import wait_until

REQUESTS = 2000
FRONT_END_WORKERS = 8  # and as many clients
_ARENA = "/memfd:multigpu-arena"


def arenas_of(process: psutil.Process) -> list[int]:
    """The memory files that a process has open, by their inodes."""
    folder = f"/proc/{process.pid}/fd"
    found = []
    for name in os.listdir(folder):
        try:
            if os.readlink(f"{folder}/{name}").startswith(_ARENA):
                found.append(os.stat(f"{folder}/{name}").st_ino)
        except FileNotFoundError:
            continue
    return found


def arena_bytes(endpoint: Endpoint) -> int:
    """Shared memory of all arenas together."""
    sizes: dict[int, int] = {}
    for process in endpoint.descendants():
        folder = f"/proc/{process.pid}/fd"
        for name in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{name}").startswith(_ARENA):
                    stat = os.stat(f"{folder}/{name}")
                    sizes[stat.st_ino] = stat.st_blocks * 512
            except FileNotFoundError:
                continue
    return sum(sizes.values())


def all_arenas(endpoint: Endpoint) -> set[int]:
    return {number for process in endpoint.descendants() for number in arenas_of(process)}


def open_files(endpoint: Endpoint) -> dict[str, int]:
    """Descriptors, arenas aside, of the processes that live throughout."""
    assert endpoint.process is not None
    processes = {"supervisor": psutil.Process(endpoint.process.pid)}
    (processes["engine"],) = endpoint.processes("multigpu_inference.engine.server")
    if endpoint.environment["MULTIGPU_FRONT_END"] == HTTP:
        (processes["front end"],) = endpoint.processes("multigpu_inference.frontend.http.server")
    return {name: process.num_fds() - len(arenas_of(process)) for name, process in processes.items()}


@pytest.fixture
def endpoint(new_endpoint: Callable[..., Endpoint]) -> Endpoint:
    workers = str(FRONT_END_WORKERS)
    return new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS=workers).with_script("reverses").start().ready()


def body(number: int, size: int | None = None) -> bytes:
    chance = random.Random(number)
    return chance.randbytes(chance.choice([0, 10, 70_000, 200_000, 600_000]) if size is None else size)


def send(
    endpoint: Endpoint,
    numbers: range,
    size: int | None = None,
    before_each: Callable[[int], None] = lambda number: None,
) -> list[int]:
    """Send requests, several at a time, again where they are asked to come later; their statuses. Each answer must be right."""

    def one(number: int) -> int:
        sent = body(number, size)
        before_each(number)
        for _ in range(100):
            answer = endpoint.invoke(sent, "application/octet-stream")
            if answer.status_code != 503:
                break
            time.sleep(0.1)  # all replicas are dead at once
        if answer.status_code == 200:
            assert answer.content == sent[::-1]
        return answer.status_code

    with concurrent.futures.ThreadPoolExecutor(FRONT_END_WORKERS) as threads:
        return list(threads.map(one, numbers))


def at_rest(endpoint: Endpoint) -> bool:
    """Whether all workers are there, the spare too, and no more arenas than requests at a time."""
    pool, replicas = endpoint.processes("engine.pool_worker"), endpoint.processes("engine.replica_worker")
    return len(pool) == 3 and len(replicas) == 2 and len(all_arenas(endpoint)) <= FRONT_END_WORKERS


@once_is_enough
@pytest.mark.timeout(240)
def test_nothing_is_left_behind_by_thousands_of_requests_with_deaths_on_the_way(endpoint: Endpoint, kind: str) -> None:
    assert set(send(endpoint, range(200))) == {200}
    if kind == HTTP:
        assert set(send(endpoint, range(FRONT_END_WORKERS * 2), 600_000)) == {200}
    else:  # every front-end worker has had the largest body by now, or gets it
        wait_until(lambda: send(endpoint, range(FRONT_END_WORKERS * 2), 600_000) and len(all_arenas(endpoint)) == 8, 30)
    wait_until(lambda: at_rest(endpoint), 20)
    before, bytes_before = open_files(endpoint), arena_bytes(endpoint)

    chance, killed = random.Random(1), list[int]()

    def kill_now_and_then(number: int) -> None:
        if number % 300 == 150:
            kind = ["engine.pool_worker", "engine.replica_worker"][len(killed) % 2]
            victim = chance.choice(endpoint.processes(kind))
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    statuses = send(endpoint, range(REQUESTS), before_each=kill_now_and_then)
    assert len(killed) == 7
    assert set(statuses) <= {200, 422}  # both workers that a request was tried on may have been killed
    assert statuses.count(200) > 0.98 * REQUESTS
    assert set(send(endpoint, range(FRONT_END_WORKERS * 4), 600_000)) == {200}
    wait_until(lambda: at_rest(endpoint), 30)
    wait_until(lambda: open_files(endpoint) == before, 20)
    most = bytes_before if kind != HTTP else FRONT_END_WORKERS * 4_000_000  # fewer requests may have met before
    assert arena_bytes(endpoint) <= most * 1.5
    assert set(send(endpoint, range(100))) == {200}


@once_is_enough
def test_a_request_that_is_given_up_spoils_its_arena_for_nobody(new_endpoint: Callable[..., Endpoint]) -> None:
    """A worker that is still busy with it writes late; the front-end worker's next request has another arena."""
    endpoint = new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="1", MULTIGPU_REQUEST_TIMEOUT_S="2", MULTIGPU_PREPROCESS="pool")
    endpoint.with_script("writes_late").start().ready()
    for number in range(1, 4):
        late = endpoint.invoke(bytes([25, 255]) + bytes(100_000), "application/octet-stream")
        assert late.status_code == 504
        answer = endpoint.invoke(bytes([1, number]) + bytes(100_000), "application/octet-stream")
        assert answer.content == bytes([number]) * 300_000
    wait_until(lambda: len(all_arenas(endpoint)) == 1, 10)


def test_what_a_script_keeps_is_never_overwritten(new_endpoint: Callable[..., Endpoint]) -> None:
    keeps = (
        "import numpy as np\n"
        "KEPT = []\n"
        "def model_fn(model_dir): return KEPT\n"
        "def input_fn(body, content_type): return np.frombuffer(body, np.uint8)\n"
        "def predict_fn(data, model):\n"
        "    model.append(data)\n"
        "    return np.array([kept[0] for kept in model] + [kept[-1] for kept in model], np.uint8)\n"
        "def output_fn(prediction, accept): return prediction.tobytes(), 'a/b'\n"
    )
    endpoint = new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="1", MULTIGPU_NUM_REPLICAS="1", MULTIGPU_PREPROCESS="pool")
    endpoint.with_source(keeps).start().ready()
    for number in range(1, 6):
        answer = endpoint.invoke(bytes([number]) * 100_000, "application/octet-stream")
        assert list(answer.content) == [*range(1, number + 1)] * 2
