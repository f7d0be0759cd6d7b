"""What the kernel says of a process of ours in `/proc`: its state, its CPU time, its children. Cheap enough for each second."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STOPPED, RUNNING, UNINTERRUPTIBLE = "T", "R", "D"  # a process that a debugger holds is in state t

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STATE, _FLAGS, _USER_TICKS, _SYSTEM_TICKS = 0, 6, 11, 12  # behind the name, which may have spaces and brackets in it
_EXITING = 0x4  # PF_EXITING


@dataclass(frozen=True, slots=True)
class ProcStat:
    """A process at one moment, by its first thread, which in ours has the event loop.

    Attributes:
        state: The kernel's letter.
        cpu_s: CPU time of that thread, in seconds.
        ending: Whether it runs no code of its own any more, and only the kernel's part of its end is left.
    """

    state: str
    cpu_s: float
    ending: bool = False


def read_stat(pid: int) -> ProcStat | None:
    """A process's state; None where there is none any more."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        cpu_s = (int(words[_USER_TICKS]) + int(words[_SYSTEM_TICKS])) / _TICKS_PER_S
        return ProcStat(words[_STATE], cpu_s, bool(int(words[_FLAGS]) & _EXITING))
    except (OSError, ValueError, IndexError):
        return None


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP) has stopped a process, and it has not been continued."""
    stat = read_stat(pid)
    return stat is not None and stat.state == STOPPED


def is_ending(pid: int) -> bool:
    """Whether a process has ended or is about to, by itself or by a signal."""
    stat = read_stat(pid)
    return stat is None or stat.ending


def children_of(pid: int) -> list[int]:
    """Children that the first thread of a process has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []
