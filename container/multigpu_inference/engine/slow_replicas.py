"""Which replica is much slower than its peers: told by its times, taken out, probed, and taken back or replaced.

    serving ──its times stand out──► checked, one request at a time ──it was its queue──► serving
                                         └─ slow by itself ──► out, 10 s … 5 min ──► probed, likewise ──► serving
                                                                 └──◄── still slow ──◄──┘ three times: its process is replaced

A time is from when a task was sent to its answer, so it has in it what waited in the replica before it. That is fair as long as
none is full: all have the same room and the same traffic, in turn. A replica that is a little slower than the rest, at a load
that just fills it, shows several times the others' times and yet does its share of the work. So one whose times stand out is
first given one request at a time, and is taken out only where it is slow then as well, with nothing before it.

Slow is one whose times are nearly all beyond a multiple of nearly all others' times. With requests of two sizes a median jumps
from one to the other; but whatever the sizes, of two times from the same mix the first is beyond the second in half of all
cases at most. That takes chance for granted in who gets what, which turns do not bring about by themselves: requests of two
sizes that alternate would meet each replica with always the same. So one that is compared misses some turns, by lot. Pure but
for its clock and its dice; belongs to the engine's loop.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum

_TASKS = 20  # of each replica, for a first suspicion; and of the others beside a comparison
_LOOK_EVERY = 5  # tasks of a replica: comparing all costs more than a task's own bookkeeping
_PROBES = 8
_SLOWER = 3.0
_BACK = 1.5
_NEARLY_ALL = 0.85  # of all pairs of its times and others'. By chance, with so few, that is one comparison in thousands
_SLACK_S = 0.02  # less than this is nobody's loss, and within what a busy machine does to short tasks
_FIRST_REST_S, _LONGEST_REST_S = 10.0, 300.0
_FAILED_PROBES = 3
_TRUST_S = 60.0  # how long one is not checked again that has been found to be well


class Finding(Enum):
    """What has been found out about a replica."""

    TAKEN_OUT = "replica_taken_out"
    STILL_SLOW = "replica_still_slow"
    REPLACE = "replica_replaced_as_slow"
    BACK = "replica_back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding with its figures.

    Attributes:
        slot: Whose.
        finding: What is to be done, or said.
        median_s: Of its times, one request at a time.
        peers_median_s: Of the others' meanwhile.
        rest_s: How long it rests now, where it does.
    """

    slot: int
    finding: Finding
    median_s: float
    peers_median_s: float
    rest_s: float | None = None


class _State(Enum):
    SERVING = "serving"
    CHECKED = "checked"  # in service, with one request at a time
    OUT = "out"
    PROBED = "probed"  # out, with one request at a time


_ONE_AT_A_TIME = (_State.CHECKED, _State.PROBED)


@dataclass(slots=True)
class _Slot:
    state: _State = _State.SERVING
    alive: bool = True
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_TASKS))
    noted: int = 0
    probes: list[float] = field(default_factory=list)
    misses: int = 0  # so many of its peers' tasks before it is given the next probe
    peers: deque[float] = field(default_factory=lambda: deque(maxlen=100))  # what others took while it was probed
    until: float = -math.inf  # it rests, or is trusted, until then
    rest_s: float = _FIRST_REST_S
    failed: int = 0

    def turn(self, state: _State) -> None:
        self.state = state
        self.misses = 0
        self.times.clear()
        self.probes.clear()
        self.peers.clear()

    @property
    def serves(self) -> bool:
        return self.alive and self.state is _State.SERVING


class SlowReplicas:
    """The times of all replicas, and who is out."""

    def __init__(
        self,
        count: int,
        at_least: int,
        slack_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        lot: Callable[[int], int] = random.randrange,
    ) -> None:
        """Begin with all in service.

        Args:
            count: Replicas.
            at_least: How many must be left, beside half of them.
            slack_s: By how much a request by itself may take longer than one among many, because a batch is waited for.
            clock: Monotonic seconds.
            lot: A number by chance, from 0 to below the one given.
        """
        self._lot = lot
        self._slots = [_Slot() for _ in range(count)]
        self._at_least = max(at_least, (count + 1) // 2, 1)
        self._slack_s = _SLACK_S + slack_s
        self._clock = clock

    def limit(self, slot: int) -> int:
        """How many tasks it may hold now, as far as this is concerned."""
        record = self._slots[slot]
        if record.state is _State.SERVING:
            return sys.maxsize
        if record.state is _State.OUT and self._clock() >= record.until:
            record.turn(_State.PROBED)
        return 1 if record.state in _ONE_AT_A_TIME and not record.misses else 0

    def is_out(self, slot: int) -> bool:
        """Whether it has been found to be slow, and not to be well again."""
        return self._slots[slot].state in (_State.OUT, _State.PROBED)

    def is_probed(self, slot: int) -> bool:
        """Whether a task that it is given now is its only one."""
        return self._slots[slot].state in _ONE_AT_A_TIME

    def lives(self, slots: Collection[int]) -> None:
        """Take note of who lives. With too few left in service, all come back that are out: slow is better than nothing."""
        for slot, record in enumerate(self._slots):
            record.alive = slot in slots
        if sum(record.serves for record in self._slots) < min(self._at_least, len(slots)):
            for record in self._slots:
                if record.state is not _State.SERVING:
                    record.turn(_State.SERVING)
                    record.until = self._clock() + _TRUST_S

    def replaced(self, slot: int) -> None:
        """It has a new process, which has yet to show how it is. Is it no better, it rests as long as the one before it."""
        record = self._slots[slot]
        record.turn(_State.SERVING)
        record.failed, record.until = 0, -math.inf

    def answered(self, slot: int, seconds: float, *, probe: bool) -> Verdict | None:
        """Take note of how long a task took; what has been found out by it.

        Args:
            slot: Who answered.
            seconds: From when it was sent to its answer.
            probe: Whether it was sent to one that was to have no other.
        """
        record = self._slots[slot]
        if record.state is _State.SERVING:
            record.times.append(seconds)
            record.noted += 1
            for other in self._slots:
                if other.state in _ONE_AT_A_TIME:
                    other.peers.append(seconds)
                    other.misses = max(0, other.misses - 1)
            if record.noted % _LOOK_EVERY == 0 and self._stands_out(slot):
                record.turn(_State.CHECKED)
            return next((verdict for other in range(len(self._slots)) if (verdict := self._judge(other))), None)
        if probe and record.state in _ONE_AT_A_TIME:
            record.probes.append(seconds)
            record.misses = self._lot(2 * len(self._slots))
            return self._judge(slot)
        return None

    def _stands_out(self, slot: int) -> bool:
        record = self._slots[slot]
        peers = [other for other in self._slots if other is not record and other.serves]
        if len(record.times) < _TASKS or len(peers) < self._at_least or self._clock() < record.until:
            return False
        if any(len(peer.times) < _TASKS for peer in peers):
            return False
        slower_than = sum(self._are_beyond(record.times, _SLOWER, peer.times) for peer in peers)
        return 2 * slower_than > len(peers)  # others may be as slow

    def _are_beyond(self, times: Collection[float], factor: float, others: Collection[float]) -> bool:
        """Whether nearly all are over so many times nearly all of the others', and by more than is nobody's loss."""
        ordered = sorted(others)
        pairs = sum(bisect_left(ordered, min(each / factor, each - self._slack_s)) for each in times)
        return pairs >= _NEARLY_ALL * len(times) * len(ordered)

    def _judge(self, slot: int) -> Verdict | None:
        """What its probes say, once there are enough, and enough of its peers' to compare them with."""
        record = self._slots[slot]
        if record.state not in _ONE_AT_A_TIME or len(record.probes) < _PROBES or len(record.peers) < _TASKS:
            return None
        median_s, peers_median_s = statistics.median(record.probes), statistics.median(record.peers)
        if record.state is _State.CHECKED:
            if self._are_beyond(record.probes, _SLOWER, record.peers):
                return self._rest(slot, Finding.TAKEN_OUT, median_s, peers_median_s)
            self._trust(record)
            return None
        if not self._are_beyond(record.probes, _BACK, record.peers):
            record.rest_s, record.failed = _FIRST_REST_S, 0
            self._trust(record)
            return Verdict(slot, Finding.BACK, median_s, peers_median_s)
        record.failed += 1
        finding = Finding.REPLACE if record.failed >= _FAILED_PROBES else Finding.STILL_SLOW
        return self._rest(slot, finding, median_s, peers_median_s)

    def _rest(self, slot: int, finding: Finding, median_s: float, peers_median_s: float) -> Verdict:
        record = self._slots[slot]
        rest_s, record.rest_s = record.rest_s, min(_LONGEST_REST_S, 2 * record.rest_s)
        record.turn(_State.OUT)
        record.until = self._clock() + rest_s
        return Verdict(slot, finding, median_s, peers_median_s, rest_s)

    def _trust(self, record: _Slot) -> None:
        record.turn(_State.SERVING)
        record.until = self._clock() + _TRUST_S
