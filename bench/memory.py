"""How much memory requests in flight take, beyond their bodies: all are sent at once, each once, and all must be answered."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import provenance
from bench.burst import SETTINGS, burst
from bench.format_table import format_table
from bench.measure import command_line, started
from bench.processes import machine_shmem_mib, usage
from bench.progress import say
from bench.setup import Setup

# Reading the memory of twenty processes takes some milliseconds of CPU each time.
_LOOK_EVERY_S = 0.25
_MIB = 1 << 20


@dataclass(frozen=True)
class MemoryGrowth:
    """What so many requests in flight took.

    Attributes:
        workload: Its name.
        in_flight: Requests that were sent at once.
        answered: Right answers.
        errors: Everything else.
        before_mib: The container's memory when it had answered one request of each connection's kind, and was idle.
        peak_mib: The most that was seen, with shared memory that nobody had mapped.
        bodies_mib: The bodies of all requests.
        beyond_bodies_mib: Growth of a request beyond its body.
        seconds: From the first request to the last answer.
        command: What reproduces it.
        machine: Cores and CPU model.
        date: UTC.
        commit: Of this repository.
    """

    workload: str
    in_flight: int
    answered: int
    errors: dict[str, int]
    before_mib: float
    peak_mib: float
    bodies_mib: float
    beyond_bodies_mib: float
    seconds: float
    command: str
    machine: dict[str, Any]
    date: str
    commit: str

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """For a terminal."""
        titles = ["workload", "in flight", "answered", "PSS before", "at its peak", "bodies", "each beyond its body"]
        row = [
            self.workload,
            str(self.in_flight),
            str(self.answered),
            *(f"{mib:.0f} MiB" for mib in (self.before_mib, self.peak_mib, self.bodies_mib)),
            f"{self.beyond_bodies_mib:.3f} MiB",
        ]
        return format_table(titles, [row], words=1)


class PeakWatch:
    """Looks at a figure again and again, from a thread of its own, and keeps the highest."""

    def __init__(self, look: Callable[[], float]) -> None:
        """Take the first look; `start` begins the others."""
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = look()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> float:
        """Stop; the highest."""
        self._stop.set()
        self._thread.join()
        return self.peak

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self.peak = max(self.peak, self._look())


def measure_memory(setup: Setup) -> MemoryGrowth:
    """Start the container, send `concurrency` requests at once, and watch its memory until the last is answered."""
    in_flight = max(setup.concurrency)
    setup = dataclasses.replace(setup, limit=False, extra={**SETTINGS, **setup.extra})
    workload = setup.workload
    with started(setup) as running:
        pid = running.server.pid

        def memory_mib() -> float:
            """Private memory of the container, and shared memory of the machine: a memory file may be mapped by nobody."""
            now = usage(pid)
            return sum(now.pss_mib.values()) - sum(now.shmem_mib.values()) + machine_shmem_mib()

        # A few first, so that what every worker needs once does not count as growth.
        burst(running, 8, 4)
        shared = machine_shmem_mib() - sum(usage(pid).shmem_mib.values())
        watch = PeakWatch(memory_mib)
        before = watch.peak
        watch.start()
        say(f"{workload.name}: {in_flight} requests at once")
        outcome = burst(running, in_flight, 1)
        peak = watch.stop()
    bodies = workload.inputs()
    bodies_mib = sum(len(bodies[number % len(bodies)]) for number in range(in_flight)) / _MIB
    return MemoryGrowth(
        workload=workload.name,
        in_flight=in_flight,
        answered=len(outcome.latencies_ms),
        errors=outcome.errors,
        before_mib=before - shared,
        peak_mib=peak - shared,
        bodies_mib=bodies_mib,
        beyond_bodies_mib=(peak - before - bodies_mib) / in_flight,
        seconds=outcome.seconds,
        command=f"{command_line(setup, in_flight)} --memory",
        machine=provenance.machine(),
        date=provenance.now(),
        commit=provenance.commit(),
    )
