"""The memory of the front end: at rest, and while so many requests are held in flight at the same moment.

    started ──► a few requests ──► at rest ──► all are sent, none is answered ──► nothing grows any more ──► let go

What counts is the PSS, without its shared memory, of all processes that are there because of the front end: for
multi-model-server Java, its Python workers with their parent, and the launcher; for the HTTP front end its one process.
That is their private memory, with what the workers share among themselves counted once, and with the front end's part of
the libraries that other processes have mapped too. The shared memory is the requests' arenas, which both front ends use
alike: it is told beside the figure and is no part of it. Neither is what lies in the kernel's socket buffers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import provenance
from bench.bench_error import BenchError
from bench.burst import SETTINGS, burst
from bench.format_table import format_table
from bench.measure import command_line, started
from bench.processes import FRONT_END_ROLES, Usage, usage
from bench.progress import say
from bench.setup import HTTP, MMS, Setup

# Nothing has grown for so long by more than so much: all that is going to arrive is there.
_SETTLED_S = 4.0
_SETTLED_MIB = 2.0
_ARRIVE_LIMIT_S = 90.0
_LOOK_EVERY_S = 0.25
# What every worker needs once is no growth: so many connections send so many requests each beforehand.
_FIRST = (8, 4)
_MIB = 1 << 20


@dataclass(frozen=True)
class FrontEndMemory:
    """What one front end took.

    Attributes:
        front_end: `mms` or `http`.
        in_flight: Requests that were sent at once.
        body_bytes: Of each.
        held: Right answers to those that were in flight when all of them were let go.
        errors: Everything else.
        started_mib: Before any request.
        rest_mib: Idle, behind a few requests.
        peak_mib: The most while all were held.
        by_role_mib: The same by role.
        arenas_mib: The container's shared memory at the end of the hold.
        bodies_in_arenas: How many bodies fill that, at most those sent: fewer where the front end hands on no more at a time.
        settled: Whether nothing grew any more when it was looked at last.
        share_of_mms: `peak_mib` as a share of multi-model-server's in the same run; None where that was not measured.
        mms: What multi-model-server took in the same run; None where that was not measured.
        command: What reproduces it.
        machine: Cores and CPU model.
        date: UTC.
        commit: Of this repository.
    """

    front_end: str
    in_flight: int
    body_bytes: int
    held: int
    errors: dict[str, int]
    started_mib: float
    rest_mib: float
    peak_mib: float
    by_role_mib: dict[str, float]
    arenas_mib: float
    bodies_in_arenas: int
    settled: bool
    share_of_mms: float | None = None
    mms: dict[str, Any] | None = None
    command: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    commit: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return dataclasses.asdict(self)


def measure_front_end_memory(setup: Setup) -> FrontEndMemory:
    """Measure a front end; the HTTP one after multi-model-server, unless the limit is not asked for."""
    if setup.workload.name != "hold" or setup.front_end not in (MMS, HTTP):
        raise BenchError("--front-end-memory is for the workload hold, through mms or http")
    alone = dataclasses.replace(setup, limit=False, extra={**SETTINGS, **setup.extra})
    if setup.front_end == MMS or not setup.limit:
        return _measure(alone)
    other = _measure(dataclasses.replace(alone, front_end=MMS))
    found = _measure(alone)
    return dataclasses.replace(found, share_of_mms=found.peak_mib / other.peak_mib, mms=other.as_json())


def front_end_memory_table(found: FrontEndMemory) -> str:
    """A line for each front end that was measured, for a terminal."""
    titles, rows = front_end_memory_lines(found.as_json())
    table = format_table(titles, rows, words=1)
    return table if found.share_of_mms is None else f"{table}\n\nshare of multi-model-server's: {found.share_of_mms:.3f}"


def front_end_memory_lines(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles, and a line for each front end that was measured, of what `as_json` gave."""
    titles = ["front end", "sent", "held", "bodies in arenas", "started", "at rest", "peak", "arenas", "errors"]
    return titles, [_row(each) for each in (found["mms"], found) if each is not None]


def front_end_mib(seen: Usage) -> float:
    """The memory of the front end's processes, without the arenas."""
    return sum(by_role_mib(seen).values())


def by_role_mib(seen: Usage) -> dict[str, float]:
    """The same by role."""
    return {role: seen.pss_mib[role] - seen.shmem_mib.get(role, 0.0) for role in FRONT_END_ROLES if role in seen.pss_mib}


def arenas_mib(seen: Usage) -> float:
    """The shared memory of all processes of the container."""
    return sum(seen.shmem_mib.values())


def wait_settled(
    look: Callable[[], float],
    *,
    settled_s: float = _SETTLED_S,
    limit_s: float = _ARRIVE_LIMIT_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until a figure has not grown for some seconds; False where it still does at the limit."""
    highest, since = look(), clock()
    give_up = since + limit_s
    while clock() - since < settled_s:
        if clock() > give_up:
            return False
        sleep(_LOOK_EVERY_S)
        if (now := look()) > highest + _SETTLED_MIB:
            highest, since = now, clock()
    return True


def _measure(setup: Setup) -> FrontEndMemory:
    in_flight = max(setup.concurrency)
    with started(setup) as running, ThreadPoolExecutor(1) as beside:
        pid, hold = running.server.pid, Path(running.settings["HOLD_WHILE"])
        started_mib = front_end_mib(usage(pid))
        burst(running, *_FIRST)
        rest_mib = front_end_mib(usage(pid))
        looks: list[Usage] = []

        def look() -> float:
            looks.append(usage(pid))
            return front_end_mib(looks[-1]) + arenas_mib(looks[-1])

        say(f"{setup.front_end}: {in_flight} requests are held")
        hold.touch()
        try:
            sending = beside.submit(burst, running, in_flight, 1)
            settled = wait_settled(look)
        finally:
            let_go = time.monotonic()
            hold.unlink()
        outcome = sending.result()
    peak = max(looks, key=front_end_mib)
    body_bytes = len(setup.workload.inputs()[0])
    return FrontEndMemory(
        front_end=setup.front_end,
        in_flight=in_flight,
        body_bytes=body_bytes,
        # When each was due is told to the moment that all connections took to be made, and nothing happened right before.
        held=sum(outcome.started + ms / 1e3 > let_go - _SETTLED_S / 2 for ms in outcome.latencies_ms),
        errors=outcome.errors,
        started_mib=started_mib,
        rest_mib=rest_mib,
        peak_mib=front_end_mib(peak),
        by_role_mib=by_role_mib(peak),
        arenas_mib=arenas_mib(looks[-1]),
        bodies_in_arenas=min(in_flight, int(arenas_mib(looks[-1]) * _MIB / body_bytes)),
        settled=settled,
        command=f"{command_line(setup, in_flight)} --front-end-memory",
        machine=provenance.machine(),
        date=provenance.now(),
        commit=provenance.commit(),
    )


def _row(found: Mapping[str, Any]) -> list[str]:
    errors = ", ".join(f"{count} of {kind}" for kind, count in sorted(found["errors"].items()))
    held = f"{found['held']}{'' if found['settled'] else ', not settled'}"
    sizes = (f"{found[name]:.1f} MiB" for name in ("started_mib", "rest_mib", "peak_mib", "arenas_mib"))
    return [found["front_end"], str(found["in_flight"]), held, str(found["bodies_in_arenas"]), *sizes, errors or "none"]
