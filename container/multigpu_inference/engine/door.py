"""A door: so many places behind it, and who finds none waits in order, as long as that is of use.

enter: a free place ──► in
       none: would it wait longer than it can, or is the queue full? ──► refused, with when there will be room
                                                                   else ──► the queue ──► in
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Callable

from multigpu_inference.engine.service_rate import ServiceRate, retry_after_s
from multigpu_inference.errors import Overloaded

# Requests whose time inside is kept: half of them took longer than what is taken for usual, whatever the longest was.
_STAYS = 63


class Door:
    """Lets a number in at a time, and a number wait.

    Attributes:
        in_use: Places that are taken.
    """

    def __init__(self, places: int, max_waiting: int, when_full: str, clock: Callable[[], float] = time.monotonic) -> None:
        """All places are free.

        Args:
            places: How many there are.
            max_waiting: How many may wait for one.
            when_full: What the next one is told.
            clock: The monotonic clock, in seconds.
        """
        self._places = asyncio.Semaphore(places)
        self._max_waiting = max_waiting
        self._when_full = when_full
        self._clock = clock
        self._rate = ServiceRate(places, clock)
        self._stays: deque[float] = deque(maxlen=_STAYS)
        self._waiting: dict[object, float] = {}  # since when, monotonic seconds; in order
        self.in_use = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def oldest_waiting_since(self) -> float | None:
        """When the first of those that wait came, in monotonic seconds; None where none waits."""
        return next(iter(self._waiting.values()), None)

    @property
    def retry_after_s(self) -> int:
        """In how many seconds those that wait now will be in: there will be room then."""
        return retry_after_s(self._rate.seconds_until(self.waiting + 1))

    def check(self, deadline: float) -> None:
        """Refuse who should not wait.

        Args:
            deadline: By when it is to have been served, monotonic seconds.

        Raises:
            Overloaded: where the queue is full, or it would come in too late to be served in time. Never while a place is free.
        """
        if not self._places.locked():
            return
        if self.waiting >= self._max_waiting:
            raise Overloaded(self._when_full, self.retry_after_s)
        wait_s = self._rate.seconds_until(self.waiting + 1)
        if self._clock() + wait_s + self._usual_stay_s() > deadline and wait_s > 0:
            raise Overloaded("the queue is too long for this request's time limit", retry_after_s(wait_s))

    async def enter(self) -> None:
        """Take a place, in the order of coming; `leave` must follow."""
        waiter = object()
        self._waiting[waiter] = self._clock()
        try:
            await self._places.acquire()
            self.in_use += 1
        finally:
            del self._waiting[waiter]
            self._rate.full(is_so=self._places.locked())

    def leave(self) -> None:
        """Give a place back."""
        self.in_use -= 1
        self._places.release()
        self._rate.left()
        self._rate.full(is_so=self._places.locked())

    def served(self, stay_s: float) -> None:
        """One has been served in so many seconds, from when it had its place."""
        self._stays.append(stay_s)

    def _usual_stay_s(self) -> float:
        return statistics.median(self._stays) if self._stays else 0.0
