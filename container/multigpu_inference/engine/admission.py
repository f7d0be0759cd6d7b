"""Who may come in: through a door to where all requests are worked on and, before that, for some through one to be fetched."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from multigpu_inference.engine.door import Door
from multigpu_inference.errors import Draining, Overloaded


class FetchPlace:
    """A request's place among those that are being fetched, once it has one.

    It is the fetch worker's for as long as that works on the request, which may be longer than anybody waits for it: a thread
    that hangs on a slow source is not there for another.
    """

    def __init__(self, door: Door) -> None:
        """Hold none yet."""
        self._door = door
        self._held = self._lent = False

    async def take(self) -> None:
        """Wait for a place."""
        await self._door.enter()
        self._held = True

    def lend(self) -> None:
        """The fetch worker has the request now."""
        self._lent = True

    def give_back(self) -> None:
        """The fetch worker has answered: the next one may fetch."""
        self._lent = False
        if self._held:
            self._held = False
            self._door.leave()

    def leave(self) -> None:
        """The request has ended; the place is free unless the fetch worker still has it."""
        if not self._lent:
            self.give_back()


class Admission:
    """Admits up to a limit, lets a bounded number wait in order, refuses the rest at once.

    The bound on those that wait is what keeps an accepted request quick: with as many waiting as are in, one takes twice the
    time that it takes in a full house, whatever that time is. The estimate of the wait keeps out who would come in too late.
    """

    def __init__(self, limit: int, fetching: int, max_queue_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody is in yet.

        Args:
            limit: Requests that may be in at a time.
            fetching: Of those, how many may be fetched at a time, and how many more may wait for that: a slow source must not
                keep out who needs none.
            max_queue_size: Requests that may wait to come in; those with a place to fetch may in any case.
            clock: The monotonic clock, in seconds.
        """
        self._inside = Door(limit, max_queue_size, Overloaded.default_message, clock)
        self._fetching = Door(fetching, fetching, "too many requests wait for what they fetch", clock)
        self._clock = clock
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests that are in or wait."""
        return self._inside.in_use + self.waiting

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._fetching.waiting + self._inside.waiting

    @property
    def oldest_waiting_since(self) -> float | None:
        """When the first of those that wait to come in came, in monotonic seconds; None where none waits."""
        return self._inside.oldest_waiting_since

    @property
    def retry_after_s(self) -> int:
        """When who is refused now should come again, in seconds."""
        return self._inside.retry_after_s

    @asynccontextmanager
    async def place(self, *, fetches: bool = False, deadline: float = math.inf) -> AsyncIterator[FetchPlace]:
        """Be in for the length of the block.

        Args:
            fetches: Whether it begins with `fetch_fn`: then it also has one of the places for that.
            deadline: By when it is to have been served, monotonic seconds.

        Yields:
            That place, to be lent to the fetch worker.

        Raises:
            Draining: after `drain`.
            Overloaded: where nobody may come in and the queue is full, or too long for the deadline.
        """
        if self.draining:
            raise Draining
        door = self._fetching if fetches else self._inside
        door.check(deadline)
        fetching = FetchPlace(self._fetching)
        self._idle.clear()
        try:
            if fetches:  # first: who waits for it holds no place that another could use
                await fetching.take()
            could_fetch = self._clock()
            await self._inside.enter()
            began = could_fetch if fetches else self._clock()
            try:
                yield fetching
                door.served(self._clock() - began)
            finally:
                self._inside.leave()
        finally:
            fetching.leave()
            if not self.in_flight:
                self._idle.set()

    async def drain(self) -> None:
        """Admit nobody from now on, and wait until all are out."""
        self.draining = True
        await self._idle.wait()
