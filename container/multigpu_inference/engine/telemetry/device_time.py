"""Where one device's time went, second by second: busy, or idle for a reason.

    finished request ──► pending batches ──► settle(horizon): busy, and the gaps between charged (`idle_causes`) ──► seconds

A request tells of all its hops when it has its answer, so batches become known out of order. Time is settled only up to a
horizon behind which no batch can become known any more: the arrival of the oldest request that has no answer. Belongs to the
engine's loop.
"""

from __future__ import annotations

import math
from collections import deque

from multigpu_inference.engine.telemetry.idle_causes import BUSY, IDLE_CAUSES, Timeline, idle_causes

# Batches that wait to be settled. Where one request hangs the horizon stands still: beyond this the older half is settled
# all the same, and what becomes known of that time later is left out.
_MOST_PENDING = 2048
# An outage is over when all time before its end is settled.
_MOST_OUTAGES = 256
# Marks that `recent` goes back, one a second.
_RECENT_MARKS = 61


class DeviceTime:
    """One device's seconds.

    Attributes:
        seconds: By state: `busy` and the causes of idleness. Together the time from the beginning to `settled`.
        settled: Up to when they are known, monotonic seconds.
        decode_share: How much of the pool's work is decoding just now; for the gaps that are settled next.
    """

    def __init__(self, since: float) -> None:
        """Begin at a time, in monotonic seconds."""
        self.seconds = dict.fromkeys((BUSY, *IDLE_CAUSES), 0.0)
        self.settled = since
        self.decode_share = 1.0
        # By when it began and ended, replica and hop: the one of its requests that could have begun first.
        self._pending: dict[tuple[float, float, str, str], Timeline] = {}
        self._outages: list[tuple[float, float]] = []
        self._marks: deque[dict[str, float]] = deque([dict(self.seconds)], maxlen=_RECENT_MARKS)

    def worked(self, began: float, ended: float, replica: str, hop: str, timeline: Timeline) -> bool:
        """Note a batch, once for each of its requests.

        Args:
            began: When the device began it, monotonic seconds.
            ended: When it was done, later than that.
            replica: Whose it was.
            hop: The stage's.
            timeline: The request's.

        Returns:
            Whether this is the first that is heard of it.
        """
        batch = (began, ended, replica, hop)
        known = self._pending.get(batch)
        if known is None or timeline < known:
            self._pending[batch] = timeline
        if len(self._pending) > _MOST_PENDING:
            self.settle(sorted(self._pending)[_MOST_PENDING // 2][1])
        return known is None

    def replacing(self, now: float, *, is_so: bool) -> None:
        """Note whether a replica of this device is being replaced now."""
        if self._outages and self._outages[-1][1] == math.inf:
            if not is_so:
                self._outages[-1] = (self._outages[-1][0], now)
        elif is_so:
            self._outages = [*self._outages[-_MOST_OUTAGES:], (now, math.inf)]

    def settle(self, horizon: float) -> None:
        """Charge the time up to the horizon: who arrived before it has its answer, so no work before it is still unknown.

        The gap at the horizon is charged as far as it is clear. It is ended by a request that is known, or by one that is
        not and arrived later than the horizon: up to the arrival of both there was no traffic.
        """
        if horizon <= self.settled:
            return
        clear = horizon
        for batch in sorted(self._pending):
            began, ended, _, _ = batch
            if began >= horizon:
                clear = min(horizon, self._pending[batch].arrived)
                break
            self._charge_gap(began, self._pending[batch])
            worked_until = min(ended, horizon)
            if worked_until > self.settled:
                self.seconds[BUSY] += worked_until - self.settled
                self.settled = worked_until
            if ended <= horizon:
                del self._pending[batch]
        self._charge_gap(clear, None)
        self._outages = [outage for outage in self._outages if outage[1] > self.settled]

    def mark(self) -> None:
        """Remember the seconds as they are now, for `recent`; called once a second."""
        self._marks.append(dict(self.seconds))

    def recent(self) -> dict[str, float]:
        """The seconds of about the last minute by state, as far as they are settled."""
        then = self._marks[0]
        return {state: seconds - then[state] for state, seconds in self.seconds.items()}

    def _charge_gap(self, until: float, timeline: Timeline | None) -> None:
        """Charge the time since the last batch, where there was any."""
        if until > self.settled:
            causes = idle_causes(self.settled, until, timeline, self.decode_share, self._outages)
            for cause, seconds in causes.items():
                self.seconds[cause] += seconds
            self.settled = until
