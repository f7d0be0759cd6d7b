"""What waits for a stage, and the rule by which it becomes batches.

    caller or stage before ──put──► waiting, oldest first ──take──► a thread of the stage, one batch at a time

A batch is chosen when the stage asks for one, as late as possible: the oldest item and others of its key, in order. As
the oldest always goes next, no key starves. One queue stands in front of each stage of a replica, whose threads share it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

# Full batches that may wait for a stage before the stage in front of it takes no more work, beyond one for each of its
# threads to go on with at once: so a stage whose device another replica uses too finds work whenever its turn comes.
_SPARE_BATCHES = 1


class Entry(NamedTuple, Generic[T]):
    """An item that waits.

    Attributes:
        item: The item.
        since: When it began to wait, monotonic seconds.
        key: Only items of one key share a batch.
        limit: Items of this key that the stage takes at a time.
    """

    item: T
    since: float = 0.0
    key: Hashable = None
    limit: int = 1


def next_batch(waiting: Sequence[Entry[T]], limit: int) -> tuple[list[Entry[T]], list[Entry[T]]]:
    """Divide what waits, oldest first and at least one, into the next batch of at most `limit` and the rest."""
    key = waiting[0].key
    batch: list[Entry[T]] = []
    rest: list[Entry[T]] = []
    for entry in waiting:
        fits = len(batch) < limit and _same(entry.key, key)
        (batch if fits else rest).append(entry)
    return batch, rest


def _same(key: Hashable, other: Hashable) -> bool:
    try:
        return key is other or bool(key == other)
    except Exception:  # a stage's own key, with a tensor in it for one: items that cannot be compared share no batch
        return False


class BatchQueue(Generic[T]):
    """The queue in front of one stage: any thread puts, the stage's own take."""

    def __init__(self, max_delay_s: float = 0.0, takers: int = 1) -> None:
        """Begin empty.

        Args:
            max_delay_s: How long the oldest item may wait for its batch to become full.
            takers: How many threads take.
        """
        self._max_delay_s = max_delay_s
        self._batches_ahead = takers + _SPARE_BATCHES
        # Reentrant, as a Condition's is by default: the end of a pipeline that is garbage collected may close this queue on
        # a thread that is just within it.
        lock = threading.RLock()
        self._came = threading.Condition(lock)
        self._left = threading.Condition(lock)
        self._waiting: list[Entry[T]] = []
        self._ceilings: dict[Hashable, int] = {}
        self._closed = False

    def put(self, entries: Sequence[Entry[T]]) -> None:
        """Add items, all at once, so that those that come together can leave together.

        Raises:
            RuntimeError: where the queue is closed.
        """
        with self._came:
            if self._closed:
                raise RuntimeError("this pipeline is closed")
            self._waiting += entries
            self._came.notify(len(entries))  # a taker for each at most: there may be hundreds

    def wait_for_batch(self) -> bool:
        """Wait until a batch may leave: True; or until the queue is closed and nothing waits any more: False."""
        with self._came:
            while (self._waiting or not self._closed) and (delay_s := self._delay_s()) != 0:
                self._came.wait(delay_s)
            return bool(self._waiting)

    def take(self) -> list[Entry[T]]:
        """Remove the batch that may leave now; empty where there is none, as another taker was quicker. Does not wait."""
        with self._came:
            if self._delay_s() != 0:
                return []
            batch, self._waiting = next_batch(self._waiting, self._limit(self._waiting[0]))
            if self._waiting:  # what is left may be due earlier than what those who wait have seen
                self._came.notify()
            self._left.notify_all()
            return batch

    def wait_for_room(self) -> None:
        """Wait until less work waits than may."""
        with self._left:
            self._left.wait_for(self._has_room)

    def lower_limit(self, key: Hashable, limit: int) -> None:
        """From now on, take no more items of a key at a time than this."""
        with self._came:
            self._ceilings[key] = min(limit, self._ceilings.get(key, limit))

    def close(self) -> None:
        """Take no more items; those that wait are still given out, without delay. Does not wait."""
        with self._came:
            self._closed = True
            self._came.notify_all()

    def _delay_s(self) -> float | None:
        """How long to wait before the next batch is taken, in seconds; None: until there is something."""
        if not self._waiting:
            return None
        oldest = self._waiting[0]
        left_s = oldest.since + self._max_delay_s - time.monotonic()
        if self._closed or left_s <= 0:
            return 0
        limit = self._limit(oldest)
        return 0 if len(next_batch(self._waiting, limit)[0]) == limit else left_s

    def _has_room(self) -> bool:
        # An item is that part of a full batch of its key, so that keys of different limits add up.
        return sum(1 / self._limit(entry) for entry in self._waiting) < self._batches_ahead

    def _limit(self, entry: Entry[T]) -> int:
        return min(entry.limit, self._ceilings.get(entry.key, entry.limit))
