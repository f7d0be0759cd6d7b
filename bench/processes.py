"""CPU time and memory of a container's processes, by role, from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB_PER_MIB = 1024
# The first that is found in a command line says the role. Java's Python children run the model server's worker script.
_ROLES = (
    ("com.amazonaws.ml.mms.ModelServer", "java"),
    ("model_service_worker.py", "front-end workers"),
    ("multigpu_inference.engine.pool_worker", "pool"),
    ("multigpu_inference.engine.fetch_worker", "fetch"),
    ("multigpu_inference.engine.replica_worker", "replicas"),
    ("multigpu_inference.engine.server", "engine"),
    ("multigpu_inference.frontend.model_server", "launcher"),
    ("multigpu_inference.frontend", "front end"),
)
FRONT_END_ROLES = ("java", "front-end workers", "launcher", "front end")
_OTHER = "supervision"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its descendants have used.

    Attributes:
        cpu_s: CPU seconds since each process began, by role.
        pss_mib: Memory by role; what several processes share is divided among them.
        shmem_mib: The part of that which is shared memory, by role.
        machine_cpu_s: CPU seconds of the whole machine, whoever used them.
    """

    cpu_s: dict[str, float]
    pss_mib: dict[str, float]
    shmem_mib: dict[str, float]
    machine_cpu_s: float

    def cpu_since(self, before: Usage) -> dict[str, float]:
        """CPU seconds between two looks, by role; a process that ended in between is not counted."""
        return {role: max(0.0, spent - before.cpu_s.get(role, 0.0)) for role, spent in self.cpu_s.items()}


def usage(pid: int) -> Usage:
    """Look at a process and all its descendants."""
    cpu, pss, shmem = (defaultdict[str, float](float) for _ in range(3))
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            # One that ends while it is looked at has used nothing any more.
            with suppress(psutil.Error, OSError, ValueError, IndexError):
                role = role_of(process.cmdline())
                folder = Path("/proc", str(process.pid))
                cpu[role] += cpu_seconds((folder / "stat").read_text())
                memory = memory_mib((folder / "smaps_rollup").read_text())
                pss[role] += memory.get("Pss", 0.0)
                shmem[role] += memory.get("Pss_Shmem", 0.0)
    return Usage(dict(cpu), dict(pss), dict(shmem), machine_cpu_seconds(Path("/proc/stat").read_text()))


def role_of(command: Sequence[str]) -> str:
    """What a process with this command line does in the container."""
    text = " ".join(command)
    return next((role for mark, role in _ROLES if mark in text), _OTHER)


def cpu_seconds(stat: str) -> float:
    """User and system time in a line of /proc/PID/stat; the command's name in it may hold blanks and brackets."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def machine_cpu_seconds(stat: str) -> float:
    """Time that any core was busy, in /proc/stat: user, nice, system and interrupts, not idle and not stolen."""
    fields = [int(word) for word in stat.splitlines()[0].split()[1:]]
    return sum(fields[n] for n in (0, 1, 2, 5, 6)) / _TICKS_PER_S


def memory_mib(rollup: str) -> dict[str, float]:
    """The lines of /proc/PID/smaps_rollup, such as `Pss`."""
    sizes = {}
    for line in rollup.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            sizes[name] = int(words[0]) / _KIB_PER_MIB
    return sizes


def machine_shmem_mib() -> float:
    """Shared memory of the whole machine: also what lies in memory files that nobody has mapped just now."""
    return memory_mib(Path("/proc/meminfo").read_text())["Shmem"]
