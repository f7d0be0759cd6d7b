"""Discrete events: processes as generators on a clock of their own, and resources that they queue for.

    def customer():
        yield from counter.take()
        yield 3.0
        counter.give()

A process yields a number of milliseconds to let them pass, or a queue to wait in. What is due at one moment happens in the
order in which it was asked for, so the same processes always give the same times.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Generator
from typing import TypeAlias

Process: TypeAlias = "Generator[float | deque[Process], None, None]"
Queue: TypeAlias = deque[Process]


class Clock:
    """Runs processes.

    Attributes:
        now: Milliseconds since the beginning.
    """

    def __init__(self) -> None:
        """Nothing is to happen yet."""
        self.now = 0.0
        self._due: list[tuple[float, int, Process]] = []
        self._order = itertools.count()

    def start(self, process: Process, after_ms: float = 0.0) -> None:
        """Let a process begin, or go on, after a time."""
        heapq.heappush(self._due, (self.now + after_ms, next(self._order), process))

    def wake(self, queue: Queue) -> None:
        """Let the first of those who wait go on, where there are any."""
        if queue:
            self.start(queue.popleft())

    def step(self) -> bool:
        """Let the next thing happen; False where nothing is left to happen."""
        if not self._due:
            return False
        self.now, _, process = heapq.heappop(self._due)
        for asked in process:
            if isinstance(asked, deque):
                asked.append(process)
                return True
            if asked > 0:
                self.start(process, asked)
                return True
        return True


class Resource:
    """So many equal places, such as cores or the workers of a pool.

    Attributes:
        count: Places.
    """

    def __init__(self, clock: Clock, count: int = 1) -> None:
        """All places are free."""
        self.count = count
        self._clock = clock
        self._free = count
        self._urgent, self._waiting = Queue(), Queue()
        self._busy_ms = self._begun = self._counted_until = 0.0

    def take(self, *, urgent: bool = False) -> Process:
        """Take a place, after those who came before: `yield from` it. Those that are urgent go before the others."""
        if not self._free:
            yield self._urgent if urgent else self._waiting
            return  # whoever gave it back left it taken
        self._count()
        self._free -= 1

    def give(self) -> None:
        """Give a place back: to the next who waits, or to nobody."""
        if self._urgent or self._waiting:
            self._clock.wake(self._urgent or self._waiting)
            return
        self._count()
        self._free += 1

    def forget(self) -> None:
        """Begin to count anew."""
        self._count()
        self._busy_ms, self._begun = 0.0, self._clock.now

    def utilisation(self) -> float:
        """The share of places that were taken, on average since `forget`."""
        self._count()
        return self._busy_ms / (self.count * max(1e-9, self._clock.now - self._begun))

    def _count(self) -> None:
        self._busy_ms += (self.count - self._free) * (self._clock.now - self._counted_until)
        self._counted_until = self._clock.now
