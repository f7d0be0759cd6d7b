"""Who may come in: the bound on requests in the engine, on those of them that are being fetched, and on those that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multigpu_inference.errors import Draining, Overloaded


class FetchPlace:
    """A request's place among those that are being fetched, once it has one."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        """Hold none yet."""
        self._places = places
        self._held = False

    async def take(self) -> None:
        """Wait for a place."""
        await self._places.acquire()
        self._held = True

    def give_back(self) -> None:
        """Let the next one fetch, as soon as this one has; nothing where there is no place, or no more."""
        if self._held:
            self._held = False
            self._places.release()


class Admission:
    """Admits up to a limit, lets a bounded number wait in order, refuses the rest at once."""

    def __init__(self, limit: int, fetching: int, max_queue_size: int) -> None:
        """Nobody is in yet.

        Args:
            limit: Requests that may be in at a time.
            fetching: Of those, how many may be fetched at a time: a slow source must not keep out who needs none.
            max_queue_size: Requests that may wait.
        """
        self._places = asyncio.Semaphore(limit)
        self._fetching = asyncio.Semaphore(fetching)
        self._max_queue_size = max_queue_size
        self._waiting: dict[object, float] = {}  # since when, monotonic seconds; in order
        self._inside = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests that are in or wait."""
        return self._inside + len(self._waiting)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def oldest_waiting_since(self) -> float | None:
        """When the first of those that wait came, in monotonic seconds; None where none waits."""
        return next(iter(self._waiting.values()), None)

    @asynccontextmanager
    async def place(self, *, fetches: bool = False) -> AsyncIterator[FetchPlace]:
        """Be in for the length of the block.

        Args:
            fetches: Whether it begins with `fetch_fn`: then it also has one of the places for that.

        Yields:
            That place, to be given back as soon as the request has been fetched.

        Raises:
            Draining: after `drain`.
            Overloaded: where nobody may come in and the queue is full.
        """
        if self.draining:
            raise Draining
        must_wait = self._places.locked() or (fetches and self._fetching.locked())
        if must_wait and len(self._waiting) >= self._max_queue_size:
            raise Overloaded
        waiter = object()
        self._waiting[waiter] = time.monotonic()
        self._idle.clear()
        fetching = FetchPlace(self._fetching)
        try:
            try:
                if fetches:  # first: who waits for it holds no place that another could use
                    await fetching.take()
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
            fetching.give_back()
            self._note_idle()

    async def drain(self) -> None:
        """Admit nobody from now on, and wait until all are out."""
        self.draining = True
        await self._idle.wait()

    def _note_idle(self) -> None:
        if not self.in_flight:
            self._idle.set()
