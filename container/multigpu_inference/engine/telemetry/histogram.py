"""A distribution in constant memory: how many values fell between which bounds, and their sum."""

from __future__ import annotations

import itertools
from bisect import bisect_left

# Of a request and of its hops: finest where photos are decoded and small models answer.
_UNDER_A_SECOND = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75)
SECONDS = (*_UNDER_A_SECOND, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0)
# A tenth between one and the next, from 1 ms to an hour: for quantiles.
FINE_SECONDS = tuple(0.001 * 1.1**i for i in range(160))
BATCH_SIZES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0, 1024.0)


class Histogram:
    """Counts values by size."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin empty.

        Args:
            bounds: Rising; a value counts under the first that is not smaller, or beyond the last.
        """
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Their mean; 0 where there are none."""
        return self.total / max(1, self.count)

    def cumulative(self) -> list[int]:
        """For each bound how many values are not larger, and last how many there are at all."""
        return list(itertools.accumulate(self.counts))

    def quantile(self, share: float) -> float:
        """The value that a share of all values does not exceed, as exactly as the bounds tell; 0 where there are none."""
        rank = share * self.count
        below = 0
        for i, count in enumerate(self.counts):
            if count and below + count >= rank:
                low = self.bounds[i - 1] if i else 0.0
                high = self.bounds[i] if i < len(self.bounds) else low
                return low + (high - low) * max(0.0, rank - below) / count
            below += count
        return 0.0
