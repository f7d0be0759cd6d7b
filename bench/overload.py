"""Five times as much as the container can answer: what it still answers, how soon it refuses the rest, and what `/ping` says.

closed loop: what it can answer ──► open loop at five times that, beside it ten pings a second ──► one request after the other:
is it as usual again? ──► closed loop once more, since a machine's speed changes
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import provenance
from bench.answers import Answers
from bench.connections import connect
from bench.format_table import format_table
from bench.load import REFUSALS
from bench.load_process import Window
from bench.measure import Started, command_line, put_setup_load, started
from bench.percentiles import percentile
from bench.ping_watch import Pings, PingWatch
from bench.progress import say
from bench.recovery import Recovery
from bench.setup import Setup

TIMES = 5.0
# Enough for the open loop to keep to its rate: some wait in the container, the others have just been refused.
_CONNECTIONS = 128
# The container's own queue is what is measured, not one that fits the load.
_SETTINGS = {"MULTIGPU_MAX_QUEUE_SIZE": ""}


@dataclass(frozen=True)
class Overload:
    """One front end under too much load. Times in milliseconds.

    Attributes:
        workload: Its name.
        front_end: `mms` or `http`.
        capacity_per_second: What it answered in a closed loop, right before and right after, on average.
        capacity_p99_ms: 99th percentile there, the greater of the two.
        rate: What the open loop was to offer.
        offered_per_second: What it did offer: answers of all kinds.
        requests_per_second: Right answers under that load.
        goodput_share: These, of what it can answer.
        accepted_p50_ms: Median of right answers, from when each request was due.
        accepted_p99_ms: 99th percentile.
        accepted_p99_ratio: How many times `capacity_p99_ms` that is.
        refused: 429 and 503, counted.
        refused_p50_ms: Median of these.
        refused_p99_ms: 99th percentile.
        errors: Other answers, and broken connections, counted.
        recovered_s: After the load's end, the last moment at which an answer was none, wrong, or slower than `capacity_p99_ms`.
        pings: How often `/ping` was asked.
        not_200: How many of these had another answer than 200, or none.
        ping_answers: These by status or kind of error.
        ping_p50_ms: Median.
        ping_p99_ms: 99th percentile.
        ping_max_ms: The slowest.
        cpu_cores: Cores that each role kept busy under the load, `client` among them.
        foreign_cores: Cores that were busy meanwhile with something that is no part of the measurement.
        command: What reproduces it.
        machine: Cores and CPU model.
        date: UTC.
        commit: Of this repository.
    """

    workload: str
    front_end: str
    capacity_per_second: float
    capacity_p99_ms: float
    rate: float
    offered_per_second: float
    requests_per_second: float
    goodput_share: float
    accepted_p50_ms: float
    accepted_p99_ms: float
    accepted_p99_ratio: float
    refused: dict[str, int]
    refused_p50_ms: float
    refused_p99_ms: float
    errors: dict[str, int]
    recovered_s: float
    pings: int
    not_200: int
    ping_answers: dict[str, int]
    ping_p50_ms: float
    ping_p99_ms: float
    ping_max_ms: float
    cpu_cores: dict[str, float]
    foreign_cores: float
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


OVERLOAD_TITLES = ("workload", "front end", "can/s", "offered/s", "served/s", "share", "accepted p99", "of can's", "refused",
                   "refused p99", "errors", "usual after", "pings", "not 200", "ping p99", "ping max")  # fmt: skip


def overload_line(found: Mapping[str, Any]) -> list[str]:
    """A line under these titles, of what `as_json` gave."""
    return [
        found["workload"],
        found["front_end"],
        *(f"{found[name]:.1f}" for name in ("capacity_per_second", "offered_per_second", "requests_per_second")),
        f"{found['goodput_share']:.3f}",
        f"{found['accepted_p99_ms']:.0f} ms",
        f"{found['accepted_p99_ratio']:.2f} x",
        str(sum(found["refused"].values())),
        f"{found['refused_p99_ms']:.1f} ms",
        ", ".join(f"{count} of {kind}" for kind, count in sorted(found["errors"].items())) or "none",
        f"{found['recovered_s']:.2f} s",
        str(found["pings"]),
        str(found["not_200"]),
        *(f"{found[name]:.1f} ms" for name in ("ping_p99_ms", "ping_max_ms")),
    ]


def measure_overload(setup: Setup) -> Overload:
    """Find out what the container can answer, offer five times that, and look when it is as usual again."""
    setup = dataclasses.replace(setup, limit=False, extra={**_SETTINGS, **setup.extra})
    in_flight = max(setup.concurrency)
    with started(setup) as running:
        before = _load(running, in_flight)
        usual_ms = percentile(before.outcome.latencies_ms, 99)
        can = before.requests_per_second
        say(f"{setup.workload.name}, {setup.front_end}: {can:.0f}/s are answered, {can * TIMES:.0f}/s are offered")
        watch, heard, recovery = PingWatch(running.server.url), list[Pings](), _recovery(running, usual_ms)

        def measured() -> None:
            heard.append(watch.stop())
            recovery.start()

        window = _load(running, _CONNECTIONS, can * TIMES, watch.start, measured)
        recovered_s = recovery.seconds()
        after = _load(running, in_flight)
    (pings,) = heard
    outcome = window.outcome
    can = (can + after.requests_per_second) / 2
    usual_ms = max(usual_ms, percentile(after.outcome.latencies_ms, 99))
    accepted_p99_ms = percentile(outcome.latencies_ms, 99)
    spent_s = {**window.after.cpu_since(window.before), "client": outcome.client_cpu_s}
    return Overload(
        workload=setup.workload.name,
        front_end=setup.front_end,
        capacity_per_second=can,
        capacity_p99_ms=usual_ms,
        rate=before.requests_per_second * TIMES,
        offered_per_second=(len(outcome.latencies_ms) + sum(outcome.errors.values())) / outcome.seconds,
        requests_per_second=window.requests_per_second,
        goodput_share=window.requests_per_second / can,
        accepted_p50_ms=percentile(outcome.latencies_ms, 50),
        accepted_p99_ms=accepted_p99_ms,
        accepted_p99_ratio=accepted_p99_ms / usual_ms,
        refused={kind: count for kind, count in outcome.errors.items() if kind in REFUSALS},
        refused_p50_ms=percentile(outcome.refusals_ms, 50),
        refused_p99_ms=percentile(outcome.refusals_ms, 99),
        errors={kind: count for kind, count in outcome.errors.items() if kind not in REFUSALS},
        recovered_s=recovered_s,
        pings=pings.count,
        not_200=sum(pings.not_200.values()),
        ping_answers=pings.not_200,
        ping_p50_ms=pings.p50_ms,
        ping_p99_ms=pings.p99_ms,
        ping_max_ms=pings.max_ms,
        cpu_cores={role: round(seconds / outcome.seconds, 3) for role, seconds in spent_s.items()},
        foreign_cores=window.foreign_cores,
        command=f"{command_line(setup, in_flight)} --ping",
        machine=provenance.machine(),
        date=provenance.now(),
        commit=provenance.commit(),
    )


def _load(running: Started, connections: int, rate: float | None = None, *callbacks: Any) -> Window:
    setup = dataclasses.replace(running.setup, rate=rate)
    return put_setup_load(setup, running.requests, running.server, running.target, connections, *callbacks)


def _recovery(running: Started, usual_ms: float) -> Recovery:
    workload = running.setup.workload
    body, expected = (Path(running.requests, sorted(_names(running, kind))[0]).read_bytes() for kind in ("input", "expected"))
    connection = connect(running.target, workload.content_type, workload.accept, 60.0)
    return Recovery(connection, body, Answers([expected], exact=workload.exact), usual_ms)


def _names(running: Started, kind: str) -> list[str]:
    return [path.name for path in running.requests.glob(f"*.{kind}")]
