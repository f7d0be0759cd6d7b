"""What a container holds at rest: processes, threads, descriptors, memory files, memory."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from integration.endpoint import Endpoint
from integration.test_arenas import all_arenas, arenas_of

_KINDS = ("engine.pool_worker", "engine.replica_worker", "engine.fetch_worker", "model_service_worker", "engine.server")
_LASTING = ("engine.server", "frontend.http.server", "frontend.model_server", "ModelServer")


@dataclass(frozen=True)
class Footprint:
    """What is there.

    Attributes:
        processes: By kind.
        descriptors: Of each process that lives as long as the container, arenas aside.
        threads: Of the same.
        arenas: Memory files, in all processes.
        zombies: Ended processes that nobody has collected.
        memory_mb: What each process has for itself, together, but for Java, whose heap grows within its limit as it likes.
        lasting_mb: The same of those that live as long as the container.
    """

    processes: dict[str, int]
    descriptors: dict[str, int]
    threads: dict[str, int]
    arenas: int
    zombies: int
    memory_mb: float
    lasting_mb: float


def footprint(endpoint: Endpoint) -> Footprint:
    """What a container holds now."""
    assert endpoint.process is not None
    kinds, descriptors, threads = Counter[str](), dict[str, int](), dict[str, int]()
    zombies, memory, lasting = 0, 0, 0
    for process in [psutil.Process(endpoint.process.pid), *endpoint.descendants()]:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            if process.status() == psutil.STATUS_ZOMBIE:
                zombies += 1
                continue
            command = " ".join(process.cmdline())
            kinds.update(kind for kind in _KINDS if kind in command)
            own = _own_memory(process)
            memory += 0 if "ModelServer" in command else own
            name = next((name for name in _LASTING if name in command), None)
            name = "supervisor" if process.pid == endpoint.process.pid else name
            if name is not None:
                lasting += 0 if name == "ModelServer" else own
                descriptors[name] = process.num_fds() - len(arenas_of(process))
                threads[name] = process.num_threads()
    return Footprint(dict(kinds), descriptors, threads, len(all_arenas(endpoint)), zombies, memory / 1e6, lasting / 1e6)


def _own_memory(process: psutil.Process) -> int:
    """Bytes that nobody else has: what is in arenas is in several processes, and stays for the next request."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    return process.memory_info().rss
