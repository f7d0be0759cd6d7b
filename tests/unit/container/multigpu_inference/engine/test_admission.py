from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from multigpu_inference.engine.admission import Admission
from multigpu_inference.errors import Draining, Overloaded


class Visitor:
    """Is in, once admitted, until told to leave."""

    def __init__(self, admission: Admission, order: list[Visitor] | None = None) -> None:
        self.inside = False
        self._leave = asyncio.Event()
        self._order = order
        self.task = asyncio.create_task(self._visit(admission))

    async def _visit(self, admission: Admission) -> None:
        async with admission.place():
            self.inside = True
            if self._order is not None:
                self._order.append(self)
            await self._leave.wait()
        self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task
        await settled()


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def visitors(admission: Admission, count: int, order: list[Visitor] | None = None) -> list[Visitor]:
    made = [Visitor(admission, order) for _ in range(count)]
    await settled()
    return made


async def enter(admission: Admission) -> None:
    async with admission.place():
        pass


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(in_time())


def test_as_many_are_in_as_the_limit_says() -> None:
    async def main() -> None:
        admission = Admission(limit=2, fetching=1, max_queue_size=5)
        came = await visitors(admission, 4)
        assert [visitor.inside for visitor in came] == [True, True, False, False]
        assert admission.in_flight == 4
        for visitor in came:
            await visitor.leave()
        assert admission.in_flight == 0

    run(main())


def test_one_more_than_the_queue_holds_is_refused_at_once() -> None:
    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=2)
        came = await visitors(admission, 3)
        with pytest.raises(Overloaded):
            await enter(admission)
        for visitor in came:
            await visitor.leave()
        await enter(admission)

    run(main())


def test_without_a_queue_who_finds_no_place_is_refused() -> None:
    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=0)
        await enter(admission)
        (visitor,) = await visitors(admission, 1)
        with pytest.raises(Overloaded):
            await enter(admission)
        await visitor.leave()
        await enter(admission)

    run(main())


def test_who_waits_comes_in_in_order() -> None:
    async def main() -> None:
        order: list[Visitor] = []
        admission = Admission(limit=1, fetching=1, max_queue_size=9)
        came = await visitors(admission, 5, order)
        for visitor in came:
            await visitor.leave()
        assert order == came

    run(main())


def test_nobody_overtakes_who_has_just_been_let_in() -> None:
    async def main() -> None:
        order: list[Visitor] = []
        admission = Admission(limit=1, fetching=1, max_queue_size=9)
        first, second = await visitors(admission, 2, order)
        first._leave.set()
        await first.task  # a place is free, and promised to the second
        (third,) = await visitors(admission, 1, order)
        await second.leave()
        await third.leave()
        assert order == [first, second, third]

    run(main())


def test_who_gives_up_waiting_frees_a_place_in_the_queue() -> None:
    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=1)
        first, second = await visitors(admission, 2)
        second.task.cancel()
        await settled()
        assert admission.in_flight == 1
        (third,) = await visitors(admission, 1)
        await first.leave()
        assert third.inside
        await third.leave()

    run(main())


def test_who_gives_up_while_being_let_in_passes_the_place_on() -> None:
    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=2)
        first, second, third = await visitors(admission, 3)
        first._leave.set()
        await first.task
        second.task.cancel()
        await settled()
        assert third.inside
        await third.leave()
        assert admission.in_flight == 0

    run(main())


def test_who_fails_inside_frees_the_place() -> None:
    async def fail(admission: Admission) -> None:
        async with admission.place():
            raise KeyError

    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=0)
        with pytest.raises(KeyError):
            await fail(admission)
        await enter(admission)

    run(main())


def test_a_drain_refuses_who_comes() -> None:
    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=1)
        await admission.drain()
        with pytest.raises(Draining):
            await enter(admission)

    run(main())


def test_a_drain_waits_for_the_only_one_that_is_in() -> None:
    async def main() -> None:
        admission = Admission(limit=2, fetching=1, max_queue_size=1)
        (visitor,) = await visitors(admission, 1)
        drained = asyncio.create_task(admission.drain())
        await settled()
        assert not drained.done()
        await visitor.leave()
        await drained

    run(main())


def test_a_drain_waits_for_who_is_in_and_who_waits() -> None:
    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=1)
        first, second = await visitors(admission, 2)
        drained = asyncio.create_task(admission.drain())
        await settled()
        await first.leave()
        assert second.inside
        assert not drained.done()
        await second.leave()
        await drained

    run(main())


def test_a_drain_does_not_wait_for_who_gave_up() -> None:
    async def main() -> None:
        admission = Admission(limit=1, fetching=1, max_queue_size=1)
        first, second = await visitors(admission, 2)
        drained = asyncio.create_task(admission.drain())
        second.task.cancel()
        await first.leave()
        await drained

    run(main())


class Fetch(Visitor):
    """Begins with fetching, by way of a worker that may keep it for longer than it is in."""

    async def _visit(self, admission: Admission) -> None:
        async with admission.place(fetches=True) as self.place:
            self.inside = True
            await self._leave.wait()
        self.inside = False


async def fetches(admission: Admission, count: int) -> list[Fetch]:
    made = [Fetch(admission) for _ in range(count)]
    await settled()
    return made


def test_only_so_many_are_fetched_at_a_time_and_the_others_hold_no_place() -> None:
    async def main() -> None:
        admission = Admission(limit=3, fetching=1, max_queue_size=0)
        first, second = await fetches(admission, 2)
        assert (first.inside, second.inside, admission.waiting, admission.in_flight) == (True, False, 1, 2)
        others = await visitors(admission, 2)
        assert [other.inside for other in others] == [True, True]  # though one who waits to fetch came before
        first.place.lend()
        first.place.give_back()  # fetched, and on its way to a replica
        await others[0].leave()
        assert (first.inside, second.inside) == (True, True)
        for each in (first, second, others[1]):
            await each.leave()
        assert admission.in_flight == 0

    run(main())


def test_those_that_wait_to_fetch_do_not_fill_the_queue_of_others() -> None:
    async def main() -> None:
        admission = Admission(limit=4, fetching=2, max_queue_size=1)
        made = await fetches(admission, 4)
        with pytest.raises(Overloaded, match="what they fetch"):
            await enter_to_fetch(admission)
        others = await visitors(admission, 3)
        assert [other.inside for other in others] == [True, True, False]  # the third waits in a queue that is still empty
        for each in [*made, *others]:
            each._leave.set()
        await asyncio.gather(*(each.task for each in [*made, *others]))
        assert (admission.in_flight, admission.waiting) == (0, 0)

    run(main())


def test_a_place_that_the_fetch_worker_still_has_is_not_free() -> None:
    async def main() -> None:
        admission = Admission(limit=9, fetching=1, max_queue_size=0)
        (left,) = await fetches(admission, 1)
        left.place.lend()
        await left.leave()  # its client has gone; a thread of the worker still waits for a slow source
        (second,) = await fetches(admission, 1)
        assert (second.inside, admission.in_flight) == (False, 1)
        left.place.give_back()
        await settled()
        assert second.inside
        left.place.give_back()  # again, as the end of a worker does
        (third,) = await fetches(admission, 1)
        assert not third.inside
        await second.leave()
        await third.leave()

    run(main())


def test_the_place_to_fetch_is_free_where_the_request_ends_before_the_worker_has_it() -> None:
    async def main() -> None:
        admission = Admission(limit=2, fetching=1, max_queue_size=0)
        for _ in range(3):
            with pytest.raises(ValueError, match="early"):
                async with admission.place(fetches=True):
                    raise ValueError("early")
        await enter_to_fetch(admission)

    run(main())


def test_who_gives_up_on_a_place_to_fetch_leaves_nothing() -> None:
    async def main() -> None:
        admission = Admission(limit=2, fetching=1, max_queue_size=1)
        async with admission.place(fetches=True):
            waiting = asyncio.create_task(enter_to_fetch(admission))
            await settled()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert (admission.waiting, admission.in_flight) == (0, 1)
        await enter_to_fetch(admission)

    run(main())


async def enter_to_fetch(admission: Admission) -> None:
    async with admission.place(fetches=True):
        pass
