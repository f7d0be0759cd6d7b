"""A hundred thousand requests leave nothing behind: no memory, descriptor, thread, memory file, process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from faults.footprint import Footprint, footprint
from integration.endpoint import Endpoint
from integration.frontend.http.raw_connection import RawConnection, request
from integration.kinds import KINDS
from multigpu_inference.config import HTTP
from support import wait_until

NewEndpoint = Callable[..., Endpoint]
CLIENTS = 8
BINARY = "application/octet-stream"
WARM, SHORT, LONG = 1_000, 2_000, 100_000
GROWN_MB = 50


@pytest.mark.faults
def test_two_thousand_requests_leave_nothing_behind(new_endpoint: NewEndpoint) -> None:
    nothing_is_left(new_endpoint, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_requests_leave_nothing_behind(new_endpoint: NewEndpoint) -> None:
    nothing_is_left(new_endpoint, LONG)


def nothing_is_left(new_endpoint: NewEndpoint, count: int) -> None:
    endpoint = (
        new_endpoint(MULTIGPU_PREPROCESS="pool", SAGEMAKER_MODEL_SERVER_WORKERS="8").with_script("reverses").start().ready()
    )
    assert endpoint.environment["MULTIGPU_FRONT_END"] in KINDS
    send(endpoint, WARM)
    before = at_rest(endpoint)
    send(endpoint, count)
    after = at_rest(endpoint)
    grown_mb = after.memory_mb - before.memory_mb
    kind = endpoint.environment["MULTIGPU_FRONT_END"]
    print(f"\n{kind}: {count} requests, memory {before.memory_mb:.1f} to {after.memory_mb:.1f} MB, {after}")  # noqa: T201
    assert grown_mb < GROWN_MB
    assert grown_mb < max(count, 20_000) * 1e-3  # a kB a request; fewer requests are not enough to tell
    assert (after.processes, after.zombies) == (before.processes, 0)
    assert after.arenas <= 2 * CLIENTS
    if kind == HTTP:  # Java has more or fewer threads and descriptors as it likes
        assert after.threads == before.threads
        wait_until(lambda: footprint(endpoint).descriptors == before.descriptors, 15)


def at_rest(endpoint: Endpoint) -> Footprint:
    """What it holds once nothing is under way and every worker is there."""

    def complete() -> list[Footprint]:
        found = footprint(endpoint)
        return [found] if found.zombies == 0 and found.processes.get("engine.pool_worker") == 3 else []

    return wait_until(complete, 20)[0]


def send(endpoint: Endpoint, count: int) -> None:
    """So many requests over eight connections, of all sizes up to 200 KB; each answer must be right."""
    sizes = (10, 1_000, 60_000, 70_000, 200_000)

    def client(number: int) -> None:
        bodies = [os.urandom(size) for size in sizes]
        with RawConnection(endpoint.port, 60) as connection:
            for turn in range(count // CLIENTS):
                body = bodies[(turn * turn + number) % len(bodies)]
                answer = connection.ask(request(BINARY, body))
                assert (answer.status, answer.body) == (200, body[::-1])

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(client, range(CLIENTS)))
