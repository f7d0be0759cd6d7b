"""Who may come in: the bound on requests in the engine, and on those that wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multigpu_inference.errors import Draining, Overloaded


class Admission:
    """Admits up to a limit, lets a bounded number wait in order, refuses the rest at once."""

    def __init__(self, limit: int, max_queue_size: int) -> None:
        """Nobody is in yet.

        Args:
            limit: Requests that may be in at a time.
            max_queue_size: Requests that may wait.
        """
        self._places = asyncio.Semaphore(limit)
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
    async def place(self) -> AsyncIterator[None]:
        """Be in for the length of the block.

        Raises:
            Draining: after `drain`.
            Overloaded: where nobody may come in and the queue is full.
        """
        if self.draining:
            raise Draining
        if self._places.locked() and len(self._waiting) >= self._max_queue_size:
            raise Overloaded
        waiter = object()
        self._waiting[waiter] = time.monotonic()
        self._idle.clear()
        try:
            await self._places.acquire()
        except BaseException:
            del self._waiting[waiter]
            self._note_idle()
            raise
        del self._waiting[waiter]
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._places.release()
            self._note_idle()

    async def drain(self) -> None:
        """Admit nobody from now on, and wait until all are out."""
        self.draining = True
        await self._idle.wait()

    def _note_idle(self) -> None:
        if not self.in_flight:
            self._idle.set()
