"""Whether a process that is there still does anything: told from what is heard of it and how the kernel finds it. Pure.

    each tick: heard of? stopped? how much CPU time? ──► None, or why it is to be given up

Counted in ticks of whoever watches, not in time: a machine that stands still for a while, the watcher with it, costs one tick.
"""

from __future__ import annotations

from multigpu_inference.proc_stat import RUNNING, STOPPED, UNINTERRUPTIBLE, ProcStat

TICK_S = 0.5
STOPPED_TICKS = 3
# In this time a loop that is alive says so several times: one that says nothing waits for ever, or goes round in circles.
SILENT_TICKS = 10
# What is asked instead of speaking by itself has others' requests and its garbage to see to before it answers.
PINGED_TICKS = 20
# A loop may also not get to the CPU, on a machine with more work than cores: that passes, and is given twice as long.
_STARVED = 2
_GETS_LITTLE = 0.2  # of the CPU: one that gets more of it and is alive says something with that


class Liveness:
    """Of one process."""

    def __init__(self, silent_ticks: int = SILENT_TICKS) -> None:
        """Begin with one that has just been heard of.

        Args:
            silent_ticks: For how long nothing may be heard of it.
        """
        self._silent_ticks = silent_ticks
        self._stopped = 0
        self._silent = 0
        self._waited = 0  # ticks of silence in which it wanted the CPU or a disk
        self._cpu_s: float | None = None  # when the silence began

    def tick(self, stat: ProcStat | None, *, heard: bool) -> str | None:
        """Why it is to be given up; None as long as it is not.

        Args:
            stat: How the kernel finds it now; None where it does not.
            heard: Whether anything has been heard of it since the last tick.
        """
        if stat is None:  # it has ended, which is seen elsewhere
            return None
        self._stopped = self._stopped + 1 if stat.state == STOPPED else 0
        if self._stopped >= STOPPED_TICKS:
            return "stopped by a signal"
        if heard or self._cpu_s is None:
            self._silent = self._waited = 0
            self._cpu_s = stat.cpu_s
            return None
        self._silent += 1
        self._waited += stat.state in (RUNNING, UNINTERRUPTIBLE)
        starved = 2 * self._waited >= self._silent and stat.cpu_s - self._cpu_s < _GETS_LITTLE * self._silent * TICK_S
        limit = self._silent_ticks * (_STARVED if starved else 1)
        return f"not heard of for {self._silent * TICK_S:g} s" if self._silent >= limit else None
