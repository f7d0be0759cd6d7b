"""Who may come in: the bound on requests in the engine, on those of them that are being fetched, and on those that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multigpu_inference.errors import Draining, Overloaded


class FetchPlace:
    """A request's place among those that are being fetched, once it has one.

    It is the fetch worker's for as long as that works on the request, which may be longer than anybody waits for it: a thread
    that hangs on a slow source is not there for another.
    """

    def __init__(self, places: asyncio.Semaphore) -> None:
        """Hold none yet."""
        self._places = places
        self._held = self._lent = False

    async def take(self) -> None:
        """Wait for a place."""
        await self._places.acquire()
        self._held = True

    def lend(self) -> None:
        """The fetch worker has the request now."""
        self._lent = True

    def give_back(self) -> None:
        """The fetch worker has answered: the next one may fetch."""
        self._lent = False
        if self._held:
            self._held = False
            self._places.release()

    def leave(self) -> None:
        """The request has ended; the place is free unless the fetch worker still has it."""
        if not self._lent:
            self.give_back()


class Admission:
    """Admits up to a limit, lets a bounded number wait in order, refuses the rest at once."""

    def __init__(self, limit: int, fetching: int, max_queue_size: int) -> None:
        """Nobody is in yet.

        Args:
            limit: Requests that may be in at a time.
            fetching: Of those, how many may be fetched at a time, and how many more may wait for that: a slow source must not
                keep out who needs none.
            max_queue_size: Requests that may wait to come in; those with a place to fetch may in any case.
        """
        self._places = asyncio.Semaphore(limit)
        self._fetching = asyncio.Semaphore(fetching)
        self._max_fetch_queue_size = fetching
        self._max_queue_size = max_queue_size
        self._waiting: dict[object, float] = {}  # since when, monotonic seconds; in order
        self._waiting_to_fetch = 0
        self._inside = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests that are in or wait."""
        return self._inside + self._waiting_to_fetch + len(self._waiting)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._waiting_to_fetch + len(self._waiting)

    @property
    def oldest_waiting_since(self) -> float | None:
        """When the first of those that wait to come in came, in monotonic seconds; None where none waits."""
        return next(iter(self._waiting.values()), None)

    @asynccontextmanager
    async def place(self, *, fetches: bool = False) -> AsyncIterator[FetchPlace]:
        """Be in for the length of the block.

        Args:
            fetches: Whether it begins with `fetch_fn`: then it also has one of the places for that.

        Yields:
            That place, to be lent to the fetch worker.

        Raises:
            Draining: after `drain`.
            Overloaded: where nobody may come in and the queue is full.
        """
        if self.draining:
            raise Draining
        fetching = FetchPlace(self._fetching)
        self._idle.clear()
        try:
            if fetches:  # first: who waits for it holds no place that another could use
                await self._take_to_fetch(fetching)
            elif self._places.locked() and len(self._waiting) >= self._max_queue_size:
                raise Overloaded
            waiter = object()
            self._waiting[waiter] = time.monotonic()
            try:
                await self._places.acquire()
            finally:
                del self._waiting[waiter]
            self._inside += 1
            try:
                yield fetching
            finally:
                self._inside -= 1
                self._places.release()
        finally:
            fetching.leave()
            if not self.in_flight:
                self._idle.set()

    async def _take_to_fetch(self, place: FetchPlace) -> None:
        if self._fetching.locked() and self._waiting_to_fetch >= self._max_fetch_queue_size:
            raise Overloaded("too many requests wait for what they fetch")
        self._waiting_to_fetch += 1
        try:
            await place.take()
        finally:
            self._waiting_to_fetch -= 1

    async def drain(self) -> None:
        """Admit nobody from now on, and wait until all are out."""
        self.draining = True
        await self._idle.wait()
