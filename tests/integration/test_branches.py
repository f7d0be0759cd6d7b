"""Stages made of branches, and weights that many requests share, in the real container."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from integration.endpoint import SERVICES, Endpoint
from integration.kinds import once_is_enough
from support import wait_until


@pytest.fixture
def small_stacks() -> Iterator[None]:
    before = threading.stack_size(256 << 10)
    yield
    threading.stack_size(before)


def picture(number: int) -> list[list[list[float]]]:
    return [[[(number * 31 + c * 7 + y * 3 + x) % 11 / 10 for x in range(8)] for y in range(8)] for c in range(3)]


def one_after_another(number: int) -> dict[str, Any]:
    """What the script's models give when each is called here by itself."""
    import torch

    script: dict[str, Any] = {}
    exec((SERVICES / "branches.py").read_text(), script)
    pictures = [torch.tensor(picture(number))]
    with torch.no_grad():
        (score,) = script["load_score"](1)(pictures)
        ((edges, _),) = script["load_edges"](0.1)(pictures)
        (colours,) = script["colours"](pictures)
    return {"score": score, "edges": edges, "colours": colours}


def started(new_endpoint: Callable[..., Endpoint]) -> Endpoint:
    endpoint = new_endpoint(MULTIGPU_NUM_REPLICAS="1", MULTIGPU_STAGE_THREADS="1")
    return endpoint.with_script("branches").start().ready()


def branch_processes(endpoint: Endpoint) -> set[int]:
    return {process.pid for process in endpoint.processes("branch_process")}


@once_is_enough
def test_branches_answer_as_one_after_another(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = started(new_endpoint)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: endpoint.invoke(json.dumps(picture(number))).json(), range(24)))
    for number, answer in enumerate(answers):
        assert {name: answer[name] for name in ("score", "edges", "colours")} == one_after_another(number)
    processes = branch_processes(endpoint)
    assert len(processes) == 2
    assert {answer["pids"][1] for answer in answers} <= processes
    assert {answer["pids"][0] for answer in answers} == set(endpoint.worker_pids("replica-").values())


@once_is_enough
@pytest.mark.slow
def test_branch_processes_are_replaced_and_end_with_their_replica(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = started(new_endpoint)
    deadly = [[[2e6] * 8] * 8] * 3
    assert endpoint.invoke(json.dumps(deadly)).status_code == 422
    assert endpoint.invoke(json.dumps(picture(1))).status_code == 200
    os.kill(branch_processes(endpoint).pop(), signal.SIGKILL)
    assert [endpoint.invoke(json.dumps(picture(2))).status_code for _ in range(4)] == [200] * 4
    (replica,) = endpoint.worker_pids("replica-").values()
    before = branch_processes(endpoint)
    os.kill(replica, signal.SIGKILL)
    wait_until(lambda: not before & branch_processes(endpoint), 20)
    wait_until(lambda: endpoint.invoke(json.dumps(picture(3))).status_code == 200, 30)
    endpoint.terminate()
    assert endpoint.wait_exit(30) == 0


@once_is_enough
@pytest.mark.slow
@pytest.mark.usefixtures("small_stacks")
def test_960_requests_are_in_flight_at_once_on_one_replica_and_all_are_answered(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(
        MULTIGPU_NUM_REPLICAS="1", MULTIGPU_STREAMS_PER_STAGE="480", AT_ONCE="960",
        MULTIGPU_PREPROCESS="pool",
    ).with_script("shares_weights")  # fmt: skip
    endpoint.start().ready()
    with ThreadPoolExecutor(960) as threads:
        answers = list(threads.map(lambda number: endpoint.invoke(str(number)), range(960)))
    assert [answer.status_code for answer in answers] == [200] * 960
    assert [answer.json()["values"] for answer in answers] == [[2.0 * number] * 4 for number in range(960)]
    assert len({answer.json()["pid"] for answer in answers}) == 1
