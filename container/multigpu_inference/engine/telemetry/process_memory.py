"""How much memory a process has, as the kernel has it counted already: one small file, some ten microseconds.

What several processes share proportionally (PSS) would need a walk through all their pages, which stops a large process for
milliseconds; so shared pages are told apart instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessMemory(NamedTuple):
    """One process's memory.

    Attributes:
        resident_bytes: All that is in RAM for it.
        shared_bytes: What of that others may have too: arenas, libraries, files.
    """

    resident_bytes: int
    shared_bytes: int


def process_memory(pid: int, proc: Path | str = "/proc") -> ProcessMemory | None:
    """Read it; None where the process has gone."""
    try:
        with open(f"{proc}/{pid}/statm", "rb", buffering=0) as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return None
    return ProcessMemory(int(resident) * _PAGE_BYTES, int(shared) * _PAGE_BYTES)
