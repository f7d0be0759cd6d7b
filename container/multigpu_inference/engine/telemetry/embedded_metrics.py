"""One log line a minute from which CloudWatch makes metrics by itself: its embedded metric format.

    each second: what is so ──┐
    each request: its seconds ┴──► line, once a minute ──► standard output ──► CloudWatch Logs ──► metrics

Values that change within the minute go as arrays, so that CloudWatch has maximum, minimum and percentiles of them. Belongs
to the engine's loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multigpu_inference.engine.telemetry.cloudwatch_metrics import DIMENSIONS, ENDPOINT, HOST, METRICS, NAMESPACE
from multigpu_inference.engine.telemetry.histogram import FINE_SECONDS, Histogram
from multigpu_inference.engine.telemetry.snapshot import Snapshot

# CloudWatch's limit on the values of an array.
MOST_VALUES = 100
# One a second. More of them, and the line might be longer than a pipe takes in one piece.
_MOST_SAMPLES = 60


@dataclass(frozen=True, slots=True)
class Totals:
    """What has been counted since the start, of which a line tells the difference.

    Attributes:
        requests: All of them.
        server_errors: Those with a status of 500 or more.
        refusals: Those that nobody worked on.
        restarts: Workers replaced.
        busy_s: By device: seconds of work.
        elapsed_s: By device: seconds of which it is known.
    """

    requests: int = 0
    server_errors: int = 0
    refusals: int = 0
    restarts: int = 0
    busy_s: tuple[float, ...] = ()
    elapsed_s: tuple[float, ...] = ()


class EmbeddedMetrics:
    """Collects a minute and writes its line."""

    def __init__(self, endpoint_name: str, host: str, before: Totals) -> None:
        """Begin a minute.

        Args:
            endpoint_name: The endpoint's; where it is "" the metrics are those of an endpoint `unknown`.
            host: What tells this instance from the endpoint's others.
            before: What has been counted by now.
        """
        self._dimensions = {ENDPOINT: endpoint_name or "unknown", HOST: host or "unknown"}
        self._before = before
        self.begin(before)

    def begin(self, before: Totals) -> None:
        """Begin the next minute."""
        self._before = before
        self.request_seconds = Histogram(FINE_SECONDS)
        self._samples: dict[str, list[float]] = {"QueueAgeSeconds": [], "QueueDepth": [], "HealthyReplicas": [], "InFlight": []}

    def sample(self, now: float, snapshot: Snapshot) -> None:
        """Note what is so, once a second."""
        since = snapshot.oldest_waiting_since
        for name, value in (
            ("QueueAgeSeconds", 0.0 if since is None else max(0.0, now - since)),
            ("QueueDepth", snapshot.waiting),
            ("HealthyReplicas", snapshot.healthy_replicas),
            ("InFlight", snapshot.in_flight),
        ):
            if len(self._samples[name]) < _MOST_SAMPLES:
                self._samples[name].append(value)

    def line(self, time_s: float, after: Totals) -> bytes:
        """The minute's line.

        Args:
            time_s: Now, seconds of the epoch.
            after: What has been counted by now.
        """
        before = self._before
        quantiles = min(MOST_VALUES, self.request_seconds.count)
        values: dict[str, Sequence[float] | float] = {
            **self._samples,
            "Requests": after.requests - before.requests,
            "Errors5xx": after.server_errors - before.server_errors,
            "Refused": after.refusals - before.refusals,
            "Restarts": after.restarts - before.restarts,
            # As many as there were, or a hundred that are spread like them.
            "RequestSeconds": [self.request_seconds.quantile((i + 0.5) / quantiles) for i in range(quantiles)],
            "DeviceBusyPercent": _busy_percent(before, after)[:MOST_VALUES],
        }
        return embedded_metrics(time_s, self._dimensions, values)


def embedded_metrics(time_s: float, dimensions: Mapping[str, str], values: Mapping[str, Sequence[float] | float]) -> bytes:
    """A line in CloudWatch's embedded metric format, with its line end; what has no value is left out.

    Args:
        time_s: Seconds of the epoch.
        dimensions: By name; `DIMENSIONS` says in which combinations they are used.
        values: By the metric's name: one value, or at most a hundred.
    """
    told = {m.name: m.unit for m in METRICS if not isinstance(value := values[m.name], Sequence) or value}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(names) for names in DIMENSIONS],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in told.items()],
    }
    document = {
        "_aws": {"Timestamp": int(time_s * 1000), "CloudWatchMetrics": [directive]},
        **dimensions,
        **{name: _short(values[name]) for name in told},
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def write_line(line: bytes) -> None:
    """Write a line to standard output in one piece, as `log` does: a pipe takes up to 4096 bytes whole."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):  # nobody reads the log any more
        os.write(1, line)


def _busy_percent(before: Totals, after: Totals) -> list[float]:
    """Of each device of whose minute anything is known."""
    busy_before, elapsed_before = before.busy_s or (0.0,) * len(after.busy_s), before.elapsed_s or (0.0,) * len(after.elapsed_s)
    busy = [late - early for early, late in zip(busy_before, after.busy_s, strict=True)]
    elapsed = [late - early for early, late in zip(elapsed_before, after.elapsed_s, strict=True)]
    return [100.0 * b / e for b, e in zip(busy, elapsed, strict=True) if e > 0]


def _short(value: Sequence[float] | float) -> list[float] | float:
    """Four digits are enough, and keep the line within what a pipe takes whole."""
    if isinstance(value, Sequence):
        return [_round(v) for v in value]
    return _round(value)


def _round(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")
