"""Five times as much as the container can answer, and whether `/ping` still comes meanwhile.

closed loop: what it can answer ──► open loop at five times that, beside it ten pings a second
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import provenance
from bench.format_table import format_table
from bench.measure import command_line, put_setup_load, started
from bench.ping_watch import Pings, PingWatch
from bench.progress import say
from bench.setup import Setup

TIMES = 5.0
# Enough for the open loop to keep to its rate: some wait in the container, the others have just been refused.
_CONNECTIONS = 128
# As many as wait for a while only: an overload is to be refused, not to be collected.
_SETTINGS = {"MULTIGPU_MAX_QUEUE_SIZE": "32"}
# What a container says that has more than it can do.
_REFUSALS = ("429", "503")


@dataclass(frozen=True)
class Overload:
    """One front end under too much load. Times in milliseconds.

    Attributes:
        workload: Its name.
        front_end: `mms` or `http`.
        capacity_per_second: What it answered in a closed loop right before.
        rate: What the open loop was to offer.
        offered_per_second: What it did offer: answers of all kinds.
        requests_per_second: Right answers under that load.
        refused: 429 and 503, counted.
        errors: Other answers, and broken connections, counted.
        pings: How often `/ping` was asked.
        not_200: How many of these had another answer than 200, or none.
        ping_answers: These by status or kind of error.
        ping_p50_ms: Median.
        ping_p99_ms: 99th percentile.
        ping_max_ms: The slowest.
        command: What reproduces it.
        machine: Cores and CPU model.
        date: UTC.
        commit: Of this repository.
    """

    workload: str
    front_end: str
    capacity_per_second: float
    rate: float
    offered_per_second: float
    requests_per_second: float
    refused: dict[str, int]
    errors: dict[str, int]
    pings: int
    not_200: int
    ping_answers: dict[str, int]
    ping_p50_ms: float
    ping_p99_ms: float
    ping_max_ms: float
    command: str
    machine: dict[str, Any]
    date: str
    commit: str

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """For a terminal."""
        return format_table(OVERLOAD_TITLES, [overload_line(self.as_json())], words=2)


OVERLOAD_TITLES = ("workload", "front end", "can/s", "offered/s", "served/s", "refused", "errors", "pings", "not 200",
                   "p50 ms", "p99 ms", "max ms")  # fmt: skip


def overload_line(found: Mapping[str, Any]) -> list[str]:
    """A line under these titles, of what `as_json` gave."""
    figures = ("capacity_per_second", "offered_per_second", "requests_per_second")
    return [
        found["workload"],
        found["front_end"],
        *(f"{found[name]:.1f}" for name in figures),
        str(sum(found["refused"].values())),
        ", ".join(f"{count} of {kind}" for kind, count in sorted(found["errors"].items())) or "none",
        str(found["pings"]),
        str(found["not_200"]),
        *(f"{found[name]:.1f}" for name in ("ping_p50_ms", "ping_p99_ms", "ping_max_ms")),
    ]


def measure_overload(setup: Setup) -> Overload:
    """Find out what the container can answer, then offer five times that."""
    setup = dataclasses.replace(setup, limit=False, extra={**_SETTINGS, **setup.extra})
    in_flight = max(setup.concurrency)
    with started(setup) as running:
        server, target = running.server, running.target
        can = put_setup_load(setup, running.requests, server, target, in_flight).requests_per_second
        say(f"{setup.workload.name}, {setup.front_end}: {can:.0f}/s are answered, {can * TIMES:.0f}/s are offered")
        watch, heard = PingWatch(server.url), list[Pings]()
        offer = dataclasses.replace(setup, rate=can * TIMES)
        window = put_setup_load(
            offer, running.requests, server, target, _CONNECTIONS, watch.start, lambda: heard.append(watch.stop())
        )
    (pings,) = heard
    outcome = window.outcome
    return Overload(
        workload=setup.workload.name,
        front_end=setup.front_end,
        capacity_per_second=can,
        rate=can * TIMES,
        offered_per_second=(len(outcome.latencies_ms) + sum(outcome.errors.values())) / outcome.seconds,
        requests_per_second=window.requests_per_second,
        refused={kind: count for kind, count in outcome.errors.items() if kind in _REFUSALS},
        errors={kind: count for kind, count in outcome.errors.items() if kind not in _REFUSALS},
        pings=pings.count,
        not_200=sum(pings.not_200.values()),
        ping_answers=pings.not_200,
        ping_p50_ms=pings.p50_ms,
        ping_p99_ms=pings.p99_ms,
        ping_max_ms=pings.max_ms,
        command=f"{command_line(setup, in_flight)} --ping",
        machine=provenance.machine(),
        date=provenance.now(),
        commit=provenance.commit(),
    )
