"""CPU time of the engine's processes, by what they do, and of everything else on the machine."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

import psutil

_ROLES = {"engine.server": "engine", "engine.pool_worker": "pool", "engine.replica_worker": "replica"}


def cpu_seconds(engine_pid: int) -> dict[str, float]:
    """Seconds since each process began, added up by role: `engine`, `pool`, `replica`, `other`."""
    spent: dict[str, float] = defaultdict(float)
    with suppress(psutil.Error):
        engine = psutil.Process(engine_pid)
        for process in (engine, *engine.children(recursive=True)):
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                times = process.cpu_times()
                spent[next((role for mark, role in _ROLES.items() if mark in command), "other")] += times.user + times.system
    return dict(spent)


def machine_cpu_seconds() -> float:
    """Seconds that any core of the machine was busy, whoever used them."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
