"""Why a worker process ended, and whether the requests that it worked on may have been the reason.

    exit code, a signal such as SIGSEGV ──► from inside      a request may be answered 422 for these
    left because it could not go on     ──► broken           counts against no request either
    killed by the engine for a task     ──► hung
    SIGKILL, and the kernel ran out     ──► out of memory
    any other signal                    ──► from outside     counts against no request

Pure but for what reads `/proc`; belongs to the engine.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

DEVICE_LOST, BROKEN = 7, 8  # a worker's own exit codes
# What a process gets for what it did itself, from the processor, the C library or the kernel, and which nobody else sends: an
# address or an instruction that is none, `abort()`, a system call or an amount of CPU time or file that it may not have.
_FROM_INSIDE = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGSYS,
        signal.SIGXCPU,
        signal.SIGXFSZ,
    }
)
_VMSTAT = Path("/proc/vmstat")
_OOM_KILLS = b"\noom_kill "
# Many workers ask, and one reading a second is enough.
_READ_AGAIN_S = 0.5


class Cause(StrEnum):
    """Why a worker ended."""

    INSIDE = "from inside"
    HUNG = "hung"
    OUT_OF_MEMORY = "out of memory"
    OUTSIDE = "from outside"
    BROKEN = "broken"

    @property
    def is_nobodys(self) -> bool:
        """Whether it counts against no request."""
        return self in (Cause.OUTSIDE, Cause.BROKEN)


def cause_of(code: int | None, killed_for: Cause | None, *, out_of_memory: bool) -> Cause:
    """Why a process ended.

    Args:
        code: Its exit code, negative for a signal's number; None where it has not ended yet, though it was killed.
        killed_for: Why the engine killed it; None where it did not.
        out_of_memory: Whether the kernel has killed a process for want of memory while this one worked.
    """
    if code is None or code == -signal.SIGKILL:
        by_others = Cause.OUT_OF_MEMORY if out_of_memory else Cause.OUTSIDE
        return killed_for or by_others
    if code == BROKEN:  # between two tasks, such as by a script that leaves files open: whoever comes next has not done that
        return Cause.BROKEN
    # An exit code of 0, too: nothing in a worker ends it while it has a task.
    return Cause.INSIDE if code >= 0 or -code in _FROM_INSIDE else Cause.OUTSIDE


def read_oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started, a control group's limit included."""
    try:
        _, found, behind = _VMSTAT.read_bytes().partition(_OOM_KILLS)
        return int(behind.split(maxsplit=1)[0]) if found else 0
    except (OSError, ValueError):  # not every kernel has it; then such a death counts as one from outside
        return 0


class OomKills:
    """When the kernel has last killed for want of memory, as far as anybody has looked.

    The counter is the machine's: another container's misfortune may be taken for a worker's, where both die at once. It costs
    a request one of its two tries, not its answer.
    """

    def __init__(self, read: Callable[[], int] = read_oom_kills, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with the counter as it is."""
        self._read = read
        self._clock = clock
        self._count = read()
        self._looked = clock()
        self._rose = float("-inf")

    def look(self) -> None:
        """Read the counter, unless somebody just has."""
        if self._clock() - self._looked >= _READ_AGAIN_S:
            self._read_again()

    def since(self, began: float) -> bool:
        """Whether it has risen since a time, in monotonic seconds; to the second, before that it may have been earlier."""
        self._read_again()
        return self._rose >= began

    def _read_again(self) -> None:
        self._looked = self._clock()
        count = self._read()
        if count > self._count:
            self._count, self._rose = count, self._looked
