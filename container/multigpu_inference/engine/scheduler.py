"""Whose turn it is: a worker that has room, and an orderly, two-class queue for who finds none.

Replicas take turns, so that all devices have the same to do. Of pool workers the one goes first that was busy last: where a
few are enough, a few work, with warm caches; one that wakes after the others' turns computes several times as slowly.

Three rules for both. A turn never waits for a busy worker while another has room. Urgent
tasks (`output_fn`: they finish a request and free what it holds) go before others. A task that is suspected of having killed
a worker gets one for itself: the emptiest is given nothing else until it has nothing left, so that nobody dies with it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict, deque
from collections.abc import Callable

from multigpu_inference.engine.worker_process import WorkerProcess
from multigpu_inference.errors import Unavailable


class RoundRobin:
    """Takes turns over numbered places."""

    def __init__(self, count: int) -> None:
        """Begin with place 0 of `count`."""
        self._count = count
        self._next = 0

    def freed(self, place: int) -> None:
        """A place has become free, which changes nobody's turn."""

    def take(self, free: Callable[[int], bool] = lambda place: True) -> int | None:
        """The next place in turn that is free, or None where none is."""
        for step in range(self._count):
            place = (self._next + step) % self._count
            if free(place):
                self._next = (place + 1) % self._count
                return place
        return None


class MostRecent:
    """Takes the numbered place that became free last: its caches still hold what it needs."""

    def __init__(self, count: int) -> None:
        """Begin with place 0 of `count`."""
        # Looked through from its end. What is taken goes to the beginning, so that those that are free stand behind the rest.
        self._order: OrderedDict[int, None] = OrderedDict((place, None) for place in reversed(range(count)))

    def freed(self, place: int) -> None:
        """A place has become free."""
        self._order.move_to_end(place)

    def take(self, free: Callable[[int], bool] = lambda place: True) -> int | None:
        """The most recent place that is free, or None where none is."""
        for place in reversed(self._order):
            if free(place):
                self._order.move_to_end(place, last=False)
                return place
        return None


class Scheduler:
    """Gives out places on workers. The number that wait is bounded by the engine's admission."""

    def __init__(
        self,
        count: int,
        room: int,
        *,
        refuse_when_none: bool,
        take_turns: bool = True,
        limit: Callable[[int], int] = lambda slot: sys.maxsize,
    ) -> None:
        """Begin without workers.

        Args:
            count: Slots; slot i holds a worker or, while it is being replaced, None.
            room: Tasks that one worker may hold.
            refuse_when_none: Whether tasks are refused while no slot has a worker; else they wait for one.
            take_turns: Whether each worker has its turn; else the one goes first that was busy last.
            limit: How many tasks the worker of a slot may hold now, where that is fewer than it has room for.
        """
        self.workers: list[WorkerProcess | None] = [None] * count
        self._room = room
        self._refuse_when_none = refuse_when_none
        self._limit = limit
        self._turns = RoundRobin(count) if take_turns else MostRecent(count)
        self._alone: deque[asyncio.Future[WorkerProcess]] = deque()
        self._avoided: dict[asyncio.Future[WorkerProcess], int] = {}  # of those
        self._emptied: int | None = None  # the slot that is given nothing, for who is to be alone on it
        self._queues: tuple[deque[asyncio.Future[WorkerProcess]], ...] = (self._alone, deque(), deque())

    @property
    def healthy(self) -> int:
        """Slots that have a living worker."""
        return sum(worker is not None and worker.alive for worker in self.workers)

    @property
    def waiting(self) -> int:
        """Tasks that wait for a worker."""
        return sum(map(len, self._queues))

    async def reserve(self, *, urgent: bool = False, alone: bool = False, avoid: int | None = None) -> WorkerProcess:
        """Reserve a place on the next worker in turn that has room, waiting for one where all are full.

        Args:
            urgent: Whether it goes before those that are not.
            alone: Whether it is to be the only task of its worker.
            avoid: The slot where one that is to be alone is not to come, as long as there is another.

        Raises:
            Unavailable: where there is no worker and tasks are not to wait for one.
        """
        # Who is to be alone has cost a worker, perhaps the last one: it waits for the next, so that its outcome is known.
        if self._refuse_when_none and not alone and not self.healthy:
            raise Unavailable
        if not self.waiting and not alone and (slot := self._turns.take(self._has_room)) is not None:
            return self._take(slot)
        turn: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        queue = self._alone if alone else self._queues[1 if urgent else 2]
        queue.append(turn)
        if alone and avoid is not None:
            self._avoided[turn] = avoid
        self.changed()  # others may wait for a worker to be emptied, which is no reason for this one to wait
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in queue:
                queue.remove(turn)
                self.changed()  # a worker may have been emptied for it
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().release()
            raise
        finally:
            self._avoided.pop(turn, None)

    def has_room(self, slot: int) -> None:
        """A worker has room, or has come: give places to those who wait."""
        self._turns.freed(slot)
        self.changed()

    def changed(self) -> None:
        """Workers have come, gone or been emptied: give places to those who wait."""
        if self._refuse_when_none and not self.healthy:
            self._refuse_all()
        while self._alone and (slot := self._turns.take(self._empty_ones().__contains__)) is not None:
            turn = self._alone.popleft()
            if not turn.done():
                turn.set_result(self._take(slot, alone=True))
        self._emptied = self._emptiest() if self._alone else None
        for queue in self._queues[1:]:
            while queue and (slot := self._turns.take(self._has_room)) is not None:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(self._take(slot))

    def _refuse_all(self) -> None:
        for queue in self._queues[1:]:
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_exception(Unavailable())

    def _take(self, slot: int, *, alone: bool = False) -> WorkerProcess:
        worker = self.workers[slot]
        assert worker is not None  # `_has_room` said so
        worker.reserve(alone=alone)
        return worker

    def _has_room(self, slot: int) -> bool:
        worker = self.workers[slot]
        if worker is None or not worker.alive or slot == self._emptied:
            return False
        return worker.in_flight < min(self._room, worker.room, self._limit(slot))

    def _empty_ones(self) -> set[int]:
        """The slots whose workers have nothing to finish, for the first that is to be alone."""
        return {slot for slot in self._for_alone() if (worker := self.workers[slot]) is not None and worker.in_flight == 0}

    def _emptiest(self) -> int | None:
        """The slot whose worker has the least to finish, for the first that is to be alone."""
        held = [(worker.in_flight, slot) for slot in self._for_alone() if (worker := self.workers[slot]) is not None]
        return min(held)[1] if held else None

    def _for_alone(self) -> list[int]:
        """Where the first that is to be alone may come: anywhere but to the one that it avoids, unless that is the only one."""
        slots = [s for s, worker in enumerate(self.workers) if worker is not None and worker.alive and self._limit(s) > 0]
        avoided = self._avoided.get(self._alone[0])
        return [slot for slot in slots if slot != avoided] or slots
