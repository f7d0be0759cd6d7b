"""A producer and its consumers: steps with threads of their own, a queue before each, and one bound for all of them.

    items ──► queue ──► step, n threads ──► queue ──► step, m threads ──► queue ──► whoever iterates

The bound: so many items at most are anywhere between the producer and whoever iterates, however slow a step is, and also
where results are wanted in order and one holds up the others. So no queue can grow beyond it, and no thread waits to put.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_JOIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to each item.

    Attributes:
        name: Of its threads.
        threads: How many.
        work: Takes an item and gives what the next step takes; what it raises ends the run.
    """

    name: str
    threads: int
    work: Callable[[Any], Any]


class Steps:
    """A context: inside its threads are there; `outcomes` sends items through them once."""

    def __init__(self, steps: Sequence[Step], bound: int, ended: threading.Event | None = None) -> None:
        """Nothing is started yet.

        Args:
            steps: One after the other.
            bound: Items that may be under way.
            ended: Set when the context is left, for steps that wait for something.
        """
        self._ended = ended or threading.Event()
        self._steps = steps
        self._queues: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(len(steps) + 1)]
        self._places = threading.Semaphore(bound)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Steps:
        """Start the threads."""
        for number, step in enumerate(self._steps):
            for _ in range(step.threads):
                self._start(step.name, self._work, step, self._queues[number], self._queues[number + 1])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End them; one that is stuck in its work is left behind."""
        self._ended.set()
        self._places.release()
        for step, items in zip(self._steps, self._queues, strict=False):
            for _ in range(step.threads):
                items.put(None)
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def outcomes(self, items: Sequence[Any], *, ordered: bool = False) -> Iterator[Any]:
        """What comes of the items, as it comes, or in their order. Raises what a step raised."""
        self._start("producer", self._produce, items)
        order = InOrder()
        for _ in items:
            turn, outcome = self._queues[-1].get()
            if isinstance(outcome, Exception):
                raise outcome
            for each in order.add(turn, outcome) if ordered else (outcome,):
                yield each
                self._places.release()

    def _start(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _produce(self, items: Iterable[Any]) -> None:
        for turned in enumerate(items):
            self._places.acquire()
            if self._ended.is_set():
                return
            self._queues[0].put(turned)

    def _work(self, step: Step, taken: queue.SimpleQueue[Any], given: queue.SimpleQueue[Any]) -> None:
        while (turned := taken.get()) is not None and not self._ended.is_set():
            turn, item = turned
            try:
                given.put((turn, step.work(item)))
            except Exception as error:
                self._queues[-1].put((turn, error))


class InOrder:
    """Holds back what comes before its turn."""

    def __init__(self) -> None:
        """Turn 0 is next."""
        self._next = 0
        self._held: dict[int, Any] = {}

    def add(self, turn: int, item: Any) -> list[Any]:
        """Take one; what can go on now, in order."""
        self._held[turn] = item
        ready = []
        while self._next in self._held:
            ready.append(self._held.pop(self._next))
            self._next += 1
        return ready
