"""How the processes of one place have fared, and so when the next is started there: at once, after a pause, or never again.

A place is given up for what is its own: starts that fail, and a device that is lost, five in a row without one answered request
in between, and none for a minute. No stranger can bring that about while others are served: theirs are answered in between, and
what a stranger sends ends a process twice at most before it is known (`poison_list`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

STABLE_AFTER_S = 60.0
LONGEST_PAUSE_S = 30.0
GIVE_UP_AFTER = 5
GIVE_UP_AFTER_S = 60.0


class SlotRecord:
    """Of one slot of a worker group.

    Attributes:
        failures: Failures in a row, since the last answer.
        given_up: Whether nothing is started any more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has happened yet."""
        self._clock = clock
        self._mishaps = 0  # in short succession, with no answer between them: they make the pauses longer
        self._answered = -math.inf  # when the last request was
        self.failures = 0
        self.given_up = False

    def answered(self) -> None:
        """Its process has answered a request as asked."""
        self._answered = self._clock()
        self.failures = self._mishaps = 0

    def ended(self, lived_s: float, *, from_outside: bool, lost_device: bool) -> None:
        """Its process has ended.

        Args:
            lived_s: How long it had been ready.
            from_outside: Whether somebody ended it, which says nothing of it.
            lost_device: Whether it left because its device is lost.
        """
        if from_outside:
            return
        self._mishaps = 0 if lived_s > STABLE_AFTER_S else self._mishaps + 1
        if lost_device:
            self._fail()

    def failed_to_start(self) -> None:
        """A process for it did not become ready."""
        self._mishaps += 1
        self._fail()

    def excuse(self) -> None:
        """A request has been found that ends workers by itself: others need not wait for what that has cost."""
        self._mishaps = 0

    def _fail(self) -> None:
        self.failures += 1
        self.given_up = self.failures >= GIVE_UP_AFTER and self._clock() - self._answered >= GIVE_UP_AFTER_S

    @property
    def pause_s(self) -> float:
        """How long to wait before the next start: at first not at all, then 1, 2, 4 … seconds."""
        return min(LONGEST_PAUSE_S, 2.0 ** (self._mishaps - 2)) if self._mishaps > 1 else 0.0
