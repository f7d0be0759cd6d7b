"""The engine's end and return; arenas, and what becomes of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.arena import KEPT_BYTES
from support import wait_until

MB = 1 << 20


def arenas(server: HttpFrontEnd) -> dict[int, int]:
    """The memory files that the front end has open, and how much each holds; a mapped one has two descriptors."""
    (process,) = server.processes()
    found = {}
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
            if os.readlink(descriptor).startswith("/memfd:multigpu-arena"):
                stat = descriptor.stat()
                found[stat.st_ino] = stat.st_blocks * 512
    return found


def hold(server: HttpFrontEnd, count: int, threads: ThreadPoolExecutor) -> list[Callable[[], tuple[int, bytes]]]:
    """Requests that the engine has, with bodies of their own."""

    def ask(number: int) -> tuple[int, bytes]:
        answer = server.post("test/hold", bytes([number]) * 100_000)
        return answer.status_code, answer.content

    running = [threads.submit(ask, number) for number in range(count)]
    wait_until(lambda: len(server.engine.held) == count, 10)
    return [each.result for each in running]


def test_requests_that_an_engine_takes_with_it_are_503(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end().start().ready()
    with ThreadPoolExecutor(4) as threads:
        answers = hold(server, 4, threads)
        server.engine.stop()
        assert [answer()[0] for answer in answers] == [503] * 4
    wait_until(lambda: server.ping() == 503, 5)
    refused = server.post("test/echo", b"x")
    assert (refused.status_code, refused.json()["error"]) == (503, "unavailable")
    server.engine.start()
    wait_until(lambda: server.ping() == 200, 5)
    body = os.urandom(MB)
    assert server.post("test/echo", body).content == body


def test_an_engine_that_comes_and_goes_is_found_each_time(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end().start().ready()
    for number in range(10):
        server.engine.stop()
        server.engine.start()
        wait_until(lambda: server.ping() == 200, 5)
        body = bytes([number]) * 100_000
        wait_until(lambda body=body: server.post("test/echo", body).content == body, 5)  # type: ignore[misc]
    wait_until(lambda: len(arenas(server)) <= 1, 5)


def test_each_request_in_flight_has_an_arena_of_its_own(impatient: HttpFrontEnd) -> None:
    with ThreadPoolExecutor(12) as threads:
        answers = hold(impatient, 12, threads)
        impatient.engine.release()
        assert [answer() for answer in answers] == [(200, bytes([number]) * 100_000) for number in range(12)]


def test_arenas_of_a_burst_are_let_go_on_both_sides(impatient: HttpFrontEnd) -> None:
    with ThreadPoolExecutor(20) as threads:
        answers = hold(impatient, 20, threads)
        assert impatient.engine.arenas >= 20
        impatient.engine.release()
        assert {answer()[0] for answer in answers} == {200}
    wait_until(lambda: len(arenas(impatient)) <= 1 and impatient.engine.arenas <= 1, 5)
    assert impatient.post("test/echo", b"x" * 100_000).status_code == 200


def test_a_spoilt_arena_is_not_used_again(impatient: HttpFrontEnd) -> None:
    wait_until(lambda: impatient.engine.arenas <= 1, 5)
    for _ in range(10):
        assert impatient.post("test/spoil", b"x" * 100_000).content == b"x" * 100_000
        assert impatient.post("test/echo", b"y" * 100_000).content == b"y" * 100_000
    wait_until(lambda: len(arenas(impatient)) <= 1, 5)


def test_arenas_are_used_again(front_end: HttpFrontEnd) -> None:
    for _ in range(50):
        front_end.post("test/echo", b"x" * 100_000)
    assert front_end.engine.arenas == 1
    assert len(arenas(front_end)) == 1


def test_a_late_answer_brings_its_arena_back_and_reaches_nobody(front_end: HttpFrontEnd) -> None:
    before = front_end.engine.arenas
    with ThreadPoolExecutor(2) as threads:
        answers = hold(front_end, 2, threads)
        assert [answer()[0] for answer in answers] == [504, 504]
    assert front_end.post("test/echo", b"own" * 50_000).content == b"own" * 50_000
    front_end.engine.release()
    assert front_end.post("test/echo", b"own" * 50_000).content == b"own" * 50_000
    assert front_end.engine.arenas <= before + 3


def test_memory_of_large_bodies_goes_back_to_the_machine(front_end: HttpFrontEnd) -> None:
    (process,) = front_end.processes()
    for _ in range(2):
        front_end.post("test/echo", bytes(25 * MB))
    before = process.memory_info().rss
    for _ in range(5):
        front_end.post("test/echo", bytes(25 * MB))
    assert process.memory_info().rss - before < 10 * MB
    assert max(arenas(front_end).values()) <= KEPT_BYTES + MB  # all else of an arena goes behind a large request
