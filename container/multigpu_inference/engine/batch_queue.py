"""What waits for a stage, and the rule by which it becomes batches.

    caller or stage before ──put──► waiting, oldest first ──take──► the stage's thread, one batch at a time

A batch is chosen when the stage asks for one, as late as possible: the oldest item and others of its key, in order. As
the oldest always goes next, no key starves. One queue stands in front of each stage of a replica.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

# Full batches that may wait for a stage before the stage in front of it takes no more work: one to go on with at once and
# one more, so that a stage whose device another replica uses too finds work whenever its turn comes.
_BATCHES_AHEAD = 2


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
    """The queue in front of one stage: any thread puts, the stage's own takes."""

    def __init__(self, max_delay_s: float = 0.0) -> None:
        """Begin empty.

        Args:
            max_delay_s: How long the oldest item may wait for its batch to become full.
        """
        self._max_delay_s = max_delay_s
        # Reentrant, as a Condition is by default: the end of a pipeline that is garbage collected may close this queue on
        # a thread that is just within it.
        self._changed = threading.Condition()
        self._waiting: list[Entry[T]] = []
        self._ceilings: dict[Hashable, int] = {}
        self._closed = False

    def put(self, entries: Sequence[Entry[T]]) -> None:
        """Add items, all at once, so that those that come together can leave together.

        Raises:
            RuntimeError: where the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("this pipeline is closed")
            self._waiting += entries
            self._changed.notify_all()

    def wait_for_batch(self) -> None:
        """Wait until `take` gives something at once, or the queue is closed."""
        with self._changed:
            while (self._waiting or not self._closed) and (delay_s := self._delay_s()) != 0:
                self._changed.wait(delay_s)

    def take(self) -> list[Entry[T]]:
        """Wait for a batch and remove it; empty once the queue is closed and nothing waits any more."""
        with self._changed:
            self.wait_for_batch()
            if not self._waiting:
                return []
            batch, self._waiting = next_batch(self._waiting, self._limit(self._waiting[0]))
            self._changed.notify_all()
            return batch

    def wait_for_room(self) -> None:
        """Wait until less work waits than may."""
        with self._changed:
            self._changed.wait_for(self._has_room)

    def lower_limit(self, key: Hashable, limit: int) -> None:
        """From now on, take no more items of a key at a time than this."""
        with self._changed:
            self._ceilings[key] = limit

    def close(self) -> None:
        """Take no more items; those that wait are still given out, without delay. Does not wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

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
        return sum(1 / self._limit(entry) for entry in self._waiting) < _BATCHES_AHEAD

    def _limit(self, entry: Entry[T]) -> int:
        return min(entry.limit, self._ceilings.get(entry.key, entry.limit))
