from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from multigpu_inference.engine.door import Door
from multigpu_inference.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(in_time())


def made(places: int = 2, max_waiting: int = 3) -> tuple[Door, Clock]:
    clock = Clock()
    return Door(places, max_waiting, "no room", clock), clock


async def fill(door: Door, count: int) -> list[asyncio.Task[None]]:
    """So many that want to come in."""
    waiting = [asyncio.create_task(door.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    return waiting


async def serve(door: Door, clock: Clock, *gaps_s: float) -> None:
    """Let one leave after each gap, and another in."""
    for gap_s in gaps_s:
        clock.now += gap_s
        door.leave()
        await door.enter()


async def busy(gap_s: float, stay_s: float) -> tuple[Door, Clock]:
    """A full house that lets one leave at such a gap, each after so long."""
    door, clock = made()
    await fill(door, 2)
    await serve(door, clock, *[gap_s] * 20)
    door.served(stay_s)
    return door, clock


def test_nobody_is_refused_while_a_place_is_free() -> None:
    async def main() -> None:
        door, clock = await busy(10.0, 20.0)
        door.leave()
        door.check(clock.now + 0.001)

    run(main())


def test_one_more_than_may_wait_is_refused_with_when_the_queue_will_be_empty() -> None:
    async def main() -> None:
        door, clock = await busy(0.9, 1.8)
        waiting = await fill(door, 3)
        with pytest.raises(Overloaded, match="no room") as refused:
            door.check(clock.now + 1e9)
        assert refused.value.retry_after_s == door.retry_after_s == 4  # four times 0.9 s, rounded up
        for task in waiting:
            task.cancel()

    run(main())


def test_who_would_come_in_too_late_is_refused_with_when_that_would_have_been() -> None:
    async def main() -> None:
        door, clock = await busy(1.5, 3.0)
        waiting = await fill(door, 1)
        with pytest.raises(Overloaded, match="time limit") as refused:
            door.check(clock.now + 5.9)
        assert refused.value.retry_after_s == 3
        door.check(clock.now + 6.1)  # two leave in 3 s, and it takes 3 s itself
        waiting[0].cancel()

    run(main())


def test_where_nothing_has_been_measured_everybody_may_wait() -> None:
    async def main() -> None:
        door, clock = made()
        await fill(door, 2)
        door.check(clock.now + 0.001)

    run(main())


def test_a_single_slow_request_does_not_refuse_those_that_come_later() -> None:
    async def main() -> None:
        door, clock = await busy(0.01, 0.02)
        await serve(door, clock, 50.0)
        door.served(50.0)
        for _ in range(9):
            door.served(0.02)
        door.check(clock.now + 0.1)

    run(main())


def test_during_a_standstill_who_has_no_time_for_it_is_refused() -> None:
    async def main() -> None:
        door, clock = await busy(0.01, 0.02)
        clock.now += 5.0
        with pytest.raises(Overloaded):
            door.check(clock.now + 4.0)
        door.check(clock.now + 6.0)

    run(main())


def test_an_hour_later_nothing_is_wrong() -> None:
    async def main() -> None:
        door, clock = await busy(0.01, 0.02)
        for _ in range(2):
            door.leave()
        clock.now += 3600.0
        await fill(door, 2)
        door.check(clock.now + 0.1)
        assert door.retry_after_s == 1

    run(main())


def test_who_waits_and_gives_up_leaves_the_clock_as_it_was() -> None:
    async def main() -> None:
        door, clock = await busy(0.01, 0.02)
        (waiting,) = await fill(door, 1)
        door.leave()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        clock.now += 3600.0  # with a free place
        await door.enter()
        door.check(clock.now + 0.1)

    run(main())
