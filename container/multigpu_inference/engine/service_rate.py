"""How quickly a full house empties, and so how long a new request would wait: an estimate from the gaps between departures.

    all places taken ──► one becomes free ──► … ──► mean gap of the last few; times the requests ahead: the wait

Belongs to a `Door`. Only time in which every place is taken is measured. So idle times count for nothing, however long, and
whatever slows the house down shows without being told: a replica that is lost, larger inputs, a list that one request brings
and whose items are in nobody's queue. The largest of the gaps is left out: one request that holds up all others for a minute
says nothing about the next one. While nobody leaves, the standstill is taken to last as long again.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from multigpu_inference.errors import MAX_RETRY_AFTER_S

# Gaps that are kept: several batches' worth, because all requests of one leave together and then nobody for a while. More
# would cost every request that finds the house full.
_WINDOW_AT_LEAST, _WINDOW_PER_PLACE, _WINDOW_AT_MOST = 64, 4, 512
# With fewer gaps nothing is said, and everybody may wait.
_LEAST = 8


class ServiceRate:
    """Departures per second while all places are taken, as a mean gap in seconds."""

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known yet.

        Args:
            places: How many requests may be in.
            clock: The monotonic clock, in seconds.
        """
        self._clock = clock
        self._gaps: deque[float] = deque(maxlen=min(_WINDOW_AT_MOST, max(_WINDOW_AT_LEAST, _WINDOW_PER_PLACE * places)))
        self._full_since: float | None = None  # or since the last departure

    def full(self, *, is_so: bool) -> None:
        """Whether all places are taken, from now on. May be said again."""
        if not is_so:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = self._clock()

    def left(self) -> None:
        """A request has given its place back; whether another had it at once is said by `full`."""
        if self._full_since is not None:
            now = self._clock()
            self._gaps.append(now - self._full_since)
            self._full_since = now

    def seconds_until(self, departures: int) -> float:
        """In how many seconds so many places will have become free; 0.0 where too little has been seen to say."""
        if len(self._gaps) < _LEAST or departures < 1:
            return 0.0
        standstill = 0.0 if self._full_since is None else self._clock() - self._full_since
        gap = (sum(self._gaps) - max(self._gaps)) / (len(self._gaps) - 1)
        return max(gap, standstill) + (departures - 1) * gap


def retry_after_s(wait_s: float) -> int:
    """What a client is told that would wait so long: whole seconds, rounded up, from 1 to `MAX_RETRY_AFTER_S`."""
    return min(MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s)))
