from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from multigpu_inference.engine.scheduler import MostRecent, RoundRobin, Scheduler
from multigpu_inference.errors import Unavailable


class FakeWorker:
    """A worker that only counts the places taken on it."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self._slot = int(name) if name.isdigit() else 0
        self.name = name
        self.alive = True
        self.room = 100
        self.alone = False
        self._held = 0
        self._scheduler = scheduler

    @property
    def in_flight(self) -> int:
        return self.room if self.alone else self._held

    def reserve(self, *, alone: bool = False) -> None:
        self._held += 1
        self.alone = alone

    def release(self) -> None:
        self._held -= 1
        self.alone = False
        self._scheduler.has_room(self._slot)


def scheduler_of(
    count: int, room: int = 1, *, refuse_when_none: bool = True, take_turns: bool = True
) -> tuple[Scheduler, list[FakeWorker]]:
    scheduler = Scheduler(count, room, refuse_when_none=refuse_when_none, take_turns=take_turns)
    workers = [FakeWorker(scheduler, str(slot)) for slot in range(count)]
    scheduler.workers[:] = cast(Any, workers)
    return scheduler, workers


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def waiting(scheduler: Scheduler, *, urgent: bool = False, alone: bool = False) -> asyncio.Task[Any]:
    """A task that asks for a place, and has got as far as it can."""
    task = asyncio.create_task(scheduler.reserve(urgent=urgent, alone=alone))
    await settled()
    return task


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(in_time())


# RoundRobin


def test_places_take_turns() -> None:
    turns = RoundRobin(3)
    assert [turns.take() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_place_that_is_not_free_is_skipped_and_its_turn_is_over() -> None:
    turns = RoundRobin(3)
    assert turns.take(lambda place: place != 0) == 1
    assert [turns.take() for _ in range(3)] == [2, 0, 1]


def test_where_none_is_free_nobodys_turn_is_over() -> None:
    turns = RoundRobin(3)
    turns.take()
    assert turns.take(lambda place: False) is None
    assert turns.take() == 1


def test_of_no_places_none_is_free() -> None:
    assert RoundRobin(0).take() is None


# MostRecent


def test_the_place_that_became_free_last_goes_first() -> None:
    recent = MostRecent(3)
    assert [recent.take() for _ in range(3)] == [0, 1, 2]
    for place in (1, 0, 2):
        recent.freed(place)
    assert [recent.take() for _ in range(3)] == [2, 0, 1]


def test_one_that_is_enough_is_the_only_one_that_works() -> None:
    recent = MostRecent(5)
    taken = set()
    for _ in range(10):
        place = recent.take()
        assert place is not None
        taken.add(place)
        recent.freed(place)
    assert taken == {0}


def test_a_place_that_is_not_free_is_passed_over_and_not_forgotten() -> None:
    recent = MostRecent(3)
    assert recent.take(lambda place: place != 0) == 1
    assert recent.take(lambda place: False) is None
    assert {recent.take(lambda place: place != 1) for _ in range(2)} == {0, 2}


# Scheduler


def test_workers_take_turns() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(3, room=2)
        assert [(await scheduler.reserve()).name for _ in range(6)] == ["0", "1", "2", "0", "1", "2"]
        assert [worker.in_flight for worker in workers] == [2, 2, 2]

    run(main())


def test_a_full_worker_is_passed_over() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(3)
        workers[0].reserve()
        assert [(await scheduler.reserve()).name for _ in range(2)] == ["1", "2"]

    run(main())


@pytest.mark.parametrize("gone", ["dead", "being replaced"])
def test_a_worker_that_is_not_there_is_passed_over(gone: str) -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(2, room=2)
        if gone == "dead":
            workers[0].alive = False
        else:
            scheduler.workers[0] = None
        assert scheduler.healthy == 1
        assert [(await scheduler.reserve()).name for _ in range(2)] == ["1", "1"]

    run(main())


def test_where_all_are_full_a_task_waits_for_the_first_that_has_room() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(3)
        for _ in workers:
            await scheduler.reserve()
        task = await waiting(scheduler)
        assert scheduler.waiting == 1
        workers[1].release()
        assert (await task).name == "1"
        assert workers[1].in_flight == 1
        assert scheduler.waiting == 0

    run(main())


def test_who_waits_is_served_in_order() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        await scheduler.reserve()
        tasks = [await waiting(scheduler) for _ in range(4)]
        for task in tasks:
            assert not task.done()
            worker.release()
            await task

    run(main())


def test_nobody_overtakes_who_has_just_been_given_a_place() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        await scheduler.reserve()
        task = await waiting(scheduler)
        worker.release()
        late = asyncio.create_task(scheduler.reserve())
        await task
        assert worker.in_flight == 1
        assert not late.done()
        worker.release()
        await late

    run(main())


def test_urgent_tasks_go_first_and_in_order() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        await scheduler.reserve()
        ordinary = await waiting(scheduler)
        urgent = [await waiting(scheduler, urgent=True) for _ in range(2)]
        for task in [*urgent, ordinary]:
            assert not task.done()
            worker.release()
            await task

    run(main())


def test_who_gives_up_waiting_is_forgotten() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        await scheduler.reserve()
        first, second = await waiting(scheduler), await waiting(scheduler)
        first.cancel()
        await settled()
        assert scheduler.waiting == 1
        worker.release()
        await second
        assert worker.in_flight == 1

    run(main())


def test_who_gives_up_while_being_given_a_place_passes_it_on() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        await scheduler.reserve()
        first, second = await waiting(scheduler), await waiting(scheduler)
        worker.release()  # the place is the first one's, who has not run since
        first.cancel()
        await second
        assert first.cancelled()
        assert worker.in_flight == 1

    run(main())


def test_who_gives_up_at_the_moment_a_place_comes_free_takes_none() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        await scheduler.reserve()
        first, second = await waiting(scheduler), await waiting(scheduler)
        first.cancel()  # and has not run since
        worker.release()
        await second
        await settled()
        assert worker.in_flight == 1

    run(main())


def test_where_no_worker_lives_a_task_is_refused() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        worker.alive = False
        with pytest.raises(Unavailable):
            await scheduler.reserve()

    run(main())


def test_who_waits_for_the_last_worker_is_refused_when_it_dies() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(2)
        for _ in workers:
            await scheduler.reserve()
        tasks = [await waiting(scheduler), await waiting(scheduler, urgent=True)]
        workers[0].alive = False
        scheduler.changed()
        await settled()
        assert not any(task.done() for task in tasks)
        workers[1].alive = False
        scheduler.changed()
        for task in tasks:
            with pytest.raises(Unavailable):
                await task
        assert scheduler.waiting == 0

    run(main())


def test_where_tasks_are_not_refused_they_wait_for_a_worker_to_come() -> None:
    async def main() -> None:
        scheduler = Scheduler(1, 1, refuse_when_none=False)
        task = await waiting(scheduler)
        assert not task.done()
        scheduler.workers[0] = cast(Any, FakeWorker(scheduler, "new"))
        scheduler.changed()
        assert (await task).name == "new"

    run(main())


def test_a_new_worker_takes_as_many_as_it_has_room_for() -> None:
    async def main() -> None:
        scheduler, _ = scheduler_of(1, room=2)
        for _ in range(2):
            await scheduler.reserve()
        tasks = [await waiting(scheduler) for _ in range(3)]
        new = FakeWorker(scheduler, "new")
        scheduler.workers[0] = cast(Any, new)
        scheduler.changed()
        await settled()
        assert [task.done() for task in tasks] == [True, True, False]
        new.release()
        await tasks[2]

    run(main())


def test_a_worker_may_have_less_room_than_its_group() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(2, room=3)
        workers[0].room = 1
        assert [(await scheduler.reserve()).name for _ in range(4)] == ["0", "1", "1", "1"]

    run(main())


def test_who_is_to_be_alone_gets_an_empty_worker_that_nobody_else_gets() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(2, room=2)
        assert (await scheduler.reserve()).name == "0"
        assert (await scheduler.reserve(alone=True)).name == "1"
        assert (await scheduler.reserve()).name == "0"
        late = await waiting(scheduler)
        assert not late.done()
        workers[1].release()
        assert (await late).name == "1"

    run(main())


def test_where_none_is_empty_the_emptiest_is_given_nothing_until_it_is() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(2, room=3)
        for _ in range(5):
            await scheduler.reserve()  # three on the first, two on the second
        alone = await waiting(scheduler, alone=True)
        others = [await waiting(scheduler) for _ in range(3)]
        workers[1].release()
        await settled()
        assert not any(task.done() for task in [alone, *others])
        workers[0].release()
        assert (await others[0]).name == "0"  # the other one goes on
        workers[1].release()
        assert (await alone).name == "1"
        workers[1].release()
        assert [(await task).name for task in others[1:]] == ["1", "1"]

    run(main())


def test_while_a_worker_is_emptied_the_others_take_what_comes() -> None:
    async def main() -> None:
        scheduler, _ = scheduler_of(2, room=3)
        for _ in range(4):
            await scheduler.reserve()
        alone = await waiting(scheduler, alone=True)
        other = await waiting(scheduler)
        assert not alone.done()
        assert (await other).in_flight == 3
        alone.cancel()

    run(main())


def test_who_is_to_be_alone_waits_for_a_worker_where_others_are_refused() -> None:
    async def main() -> None:
        scheduler, (worker,) = scheduler_of(1)
        worker.alive = False
        alone = await waiting(scheduler, alone=True)
        with pytest.raises(Unavailable):
            await scheduler.reserve()
        scheduler.changed()
        assert not alone.done()
        worker.alive = True
        scheduler.has_room(0)
        assert (await alone).name == "0"

    run(main())


def test_who_gives_up_being_alone_leaves_the_worker_to_others() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(1, room=2)
        await scheduler.reserve()
        alone = await waiting(scheduler, alone=True)
        other = await waiting(scheduler)
        assert not other.done()
        alone.cancel()
        await settled()
        assert (await other).name == "0"
        assert workers[0].in_flight == 2

    run(main())


def test_who_is_to_be_alone_does_not_come_where_it_failed_before() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(2)
        for worker in workers:
            worker.reserve()
        alone = asyncio.create_task(scheduler.reserve(alone=True, avoid=0))
        await settled()
        workers[0].release()
        await settled()
        assert not alone.done()
        assert (await scheduler.reserve()).name == "0"  # others do
        workers[1].release()
        assert (await alone).name == "1"

    run(main())


def test_unless_there_is_no_other() -> None:
    async def main() -> None:
        scheduler, workers = scheduler_of(2)
        workers[1].alive = False
        assert (await scheduler.reserve(alone=True, avoid=0)).name == "0"

    run(main())


def test_a_worker_that_is_limited_holds_no_more() -> None:
    async def main() -> None:
        limits = {0: 0, 1: 1}
        scheduler = Scheduler(3, 2, refuse_when_none=True, limit=lambda slot: limits.get(slot, 2))
        scheduler.workers[:] = cast(Any, [FakeWorker(scheduler, str(slot)) for slot in range(3)])
        assert [(await scheduler.reserve()).name for _ in range(3)] == ["1", "2", "2"]
        waits, alone = await waiting(scheduler), await waiting(scheduler, alone=True)
        assert not waits.done()
        assert not alone.done()  # the empty one is out
        limits[0] = 1
        scheduler.changed()
        assert (await alone).name == "0"
        waits.cancel()

    run(main())


@pytest.mark.parametrize("take_turns", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_no_task_waits_while_a_worker_has_room(seed: int, take_turns: bool) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        scheduler, workers = scheduler_of(4, room=2, take_turns=take_turns)
        tasks: list[asyncio.Task[Any]] = []
        for _ in range(300):
            action = chance.choice(("reserve", "reserve", "release", "give up", "die or come back"))
            busy = [worker for worker in workers if worker.in_flight]
            pending = [task for task in tasks if not task.done()]
            if action == "reserve":
                tasks.append(asyncio.create_task(scheduler.reserve(urgent=chance.random() < 0.3)))
            elif action == "release" and busy:
                chance.choice(busy).release()
            elif action == "give up" and pending:
                chance.choice(pending).cancel()
            elif action == "die or come back":
                worker = chance.choice(workers[1:])  # one stays, so that nobody is refused
                worker.alive = not worker.alive
                scheduler.changed()
            if chance.random() < 0.5:
                await settled()
                has_room = any(worker.alive and worker.in_flight < 2 for worker in workers)
                assert not (scheduler.waiting and has_room)
            assert all(worker.in_flight <= 2 for worker in workers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())
