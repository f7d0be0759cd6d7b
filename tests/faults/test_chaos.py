"""A random process is killed each second under half load: no request is lost, wrong, refused for good, or answered twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from faults.chaos import Killer, ask, capacity, counted, offer
from faults.footprint import Footprint, footprint
from integration.endpoint import Endpoint
from multigpu_inference.config import HTTP
from support import wait_until

NewEndpoint = Callable[..., Endpoint]


@pytest.mark.faults
def test_a_kill_a_second_for_ten_seconds(new_endpoint: NewEndpoint, kind: str) -> None:
    kill_for(10, new_endpoint, kind)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_kill_a_second_for_a_minute(new_endpoint: NewEndpoint, kind: str) -> None:
    kill_for(60, new_endpoint, kind)


def kill_for(seconds: float, new_endpoint: NewEndpoint, kind: str) -> None:
    endpoint = (
        new_endpoint(MULTIGPU_PREPROCESS="pool", MULTIGPU_REQUEST_TIMEOUT_S="10").with_script("accounted").start().ready()
    )
    at_most = capacity(endpoint)
    (before,) = wait_until(lambda: complete(endpoint), 20)
    seed = random.randrange(1 << 30)
    with Killer(endpoint, seed) as killer:
        outcomes = offer(endpoint, at_most / 2, seconds, first=1_000_000)
    found, killed = counted(outcomes), killer.killed
    print(f"\n{kind}: {at_most:.0f}/s at most, {len(outcomes)} requests: {dict(found)}")  # noqa: T201
    print(f"killed {dict(killed)}, seed {seed}")  # noqa: T201
    # Multi-model-server answers for a front-end worker that died, at most one request each.
    theirs = found.pop("500 theirs", 0)
    assert theirs <= killed["model_service_worker"]
    assert set(found) <= {"right", "503 refused", "504 refused"}, (seed, killed)
    assert found["right"] > 0.75 * len(outcomes), (seed, killed)  # what needs the one fetch process waits for it, or is told to
    assert sum(killed.values()) >= seconds * 0.6
    assert [ask(endpoint, number, time.monotonic()).verdict for number in range(100)] == ["right"] * 100
    (after,) = wait_until(lambda: complete(endpoint), 30)
    assert after.processes == before.processes
    assert after.threads == before.threads or kind != HTTP  # Java has more or fewer as it likes
    wait_until(lambda: footprint(endpoint).descriptors == before.descriptors or kind != HTTP, 15)
    assert after.lasting_mb - before.lasting_mb < 50
    assert endpoint.exit_code() is None


def complete(endpoint: Endpoint) -> list[Footprint]:
    """What it holds once all of its workers are there: three in the pool, one of them spare, two replicas, one that fetches."""
    found = footprint(endpoint)
    workers = ("engine.pool_worker", "engine.replica_worker", "engine.fetch_worker")
    return [found] if found.zombies == 0 and [found.processes.get(each, 0) for each in workers] == [3, 2, 1] else []
