from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from multigpu_inference.arena import KEPT_BYTES
from multigpu_inference.frontend.http.arena_pool import ArenaPool
from multigpu_inference.ipc import FrameSocket, FrameStream, socket_pair
from multigpu_inference.messages import ArenaClosed, ArenaOpened


def with_pool(test: Callable[[ArenaPool], None]) -> list[Any]:
    """Run a test with a pool; what the engine has been told."""
    ours, theirs = socket_pair()

    async def run() -> None:
        stream = FrameStream(ours)
        test(ArenaPool(stream))
        stream.close()

    asyncio.run(run())
    engine, told = FrameSocket(theirs), []
    try:
        while True:
            told.append(engine.receive()[0])
    except EOFError:
        engine.close()
    return told


def test_the_engine_hears_of_an_arena_once() -> None:
    def test(pool: ArenaPool) -> None:
        for _ in range(3):
            arena = pool.take()
            assert pool.open(arena) == 0
            pool.give_back(arena, 0)

    assert with_pool(test) == [ArenaOpened(0)]


def test_each_request_in_flight_has_one_and_the_last_one_back_is_the_next_one_out() -> None:
    def test(pool: ArenaPool) -> None:
        first, second = pool.take(), pool.take()
        assert first is not second
        assert [pool.open(first), pool.open(second)] == [0, 1]
        pool.give_back(first, 0)
        pool.give_back(second, 0)
        assert pool.take() is second
        assert pool.take() is first

    with_pool(test)


def test_those_that_nobody_needed_between_two_looks_go() -> None:
    def test(pool: ArenaPool) -> None:
        arenas = [pool.take() for _ in range(4)]
        for arena in arenas:
            pool.open(arena)
        for arena in arenas:
            pool.give_back(arena, 0)
        pool.trim()  # from now on
        in_use = [pool.take(), pool.take()]
        for arena in in_use:
            pool.give_back(arena, 0)
        pool.trim()  # two of four were never needed
        assert {pool.take() for _ in range(2)} == set(in_use)
        assert pool.take() not in arenas

    assert with_pool(test) == [*map(ArenaOpened, range(4)), ArenaClosed(0), ArenaClosed(1)]


def test_one_that_the_engine_has_not_heard_of_goes_without_a_word() -> None:
    def test(pool: ArenaPool) -> None:
        pool.give_back(pool.take(), 0)
        pool.trim()
        pool.trim()

    assert with_pool(test) == []


def test_one_of_another_connection_is_opened_anew() -> None:
    def test(pool: ArenaPool) -> None:
        other = ArenaPool(pool._engine)
        arena = other.take()
        other.open(arena)
        assert arena.pool is other
        pool.open(pool.take())
        assert pool.open(arena) == 1
        assert arena.pool is pool

    assert with_pool(test) == [ArenaOpened(0), ArenaOpened(0), ArenaOpened(1)]


def test_what_a_large_request_used_goes_back_to_the_machine() -> None:
    def test(pool: ArenaPool) -> None:
        arena = pool.take()
        size = KEPT_BYTES + (8 << 20)
        arena.memory.buffer(0, size)[:] = bytes(size)
        assert used(arena.memory.fileno()) >= size
        pool.give_back(arena, size)
        assert used(arena.memory.fileno()) <= KEPT_BYTES

    with_pool(test)


def used(descriptor: int) -> int:
    return os.fstat(descriptor).st_blocks * 512
