"""What one point of a measurement came to: the JSON, and the table on the terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.device_time import DeviceTime, device_table
from bench.format_table import format_table

# Up to this the rest of a machine is quiet; what has just ended counts as the rest, too.
_QUIET_CORES = 0.15


@dataclass(frozen=True)
class Result:
    """One workload under one load. Times in milliseconds; of repeated windows the one with the median ratio.

    Attributes:
        workload: Its name.
        front_end: What was asked: `mms` and `http` over HTTP, `engine` at its socket, `stock` the server that `noop` is
            compared with.
        devices: Simulated devices; None without a simulation.
        replicas: Replicas.
        concurrency: Requests in flight.
        rate: Of an open loop, requests per second offered; None in a closed loop.
        seconds: How long was measured.
        requests: Right answers meanwhile.
        requests_per_second: The same by second.
        limit: What the limit is: `ideal`, `bare loops`, `stock` multi-model-server, or the container through it: `mms`.
        limit_per_second: The limit.
        ratio: Of the two.
        ratios: Of all windows.
        p50_ms: Median latency, as the client saw it.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        errors: Everything but right answers, counted by status or kind.
        cpu_ms_per_request: By process role; `client` is the load generator.
        pss_mib: Memory of the container by process role, at the end of the window.
        foreign_cores: Cores that were busy meanwhile with what is no part of the measurement.
        hops_ms: Mean by hop, as the container logged it.
        trace: 50 requests with their spans, where they were traced.
        body_bytes: Length of the bodies, where another than the workload's was asked for.
        device_time: What each device did with its time, where the container says it.
        advice: What the container would change, of its last minute; "" where it does not say.
        settings: The container's settings that are not defaults.
        command: What reproduces it.
        machine: Cores and CPU model.
        date: UTC, ISO 8601.
        commit: Of this repository.
    """

    workload: str
    front_end: str
    devices: int | None
    replicas: int
    concurrency: int
    rate: float | None
    seconds: float
    requests: int
    requests_per_second: float
    limit: str
    limit_per_second: float | None
    ratio: float | None
    ratios: list[float]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: dict[str, int]
    cpu_ms_per_request: dict[str, float]
    pss_mib: dict[str, float]
    foreign_cores: float
    hops_ms: dict[str, float]
    trace: list[dict[str, Any]] = field(default_factory=list)
    body_bytes: int | None = None
    device_time: list[DeviceTime] = field(default_factory=list)
    advice: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    command: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    commit: str = ""

    @property
    def title(self) -> str:
        """The workload's name, with the length of its bodies where that is not its own."""
        return self.workload if self.body_bytes is None else f"{self.workload} of {self.body_bytes / 1e6:g} MB"

    def as_json(self) -> dict[str, Any]:
        """For a JSON file, with the sum over all roles beside the memory of each."""
        numbers = dataclasses.asdict(self)
        return {name: _rounded(value) for name, value in numbers.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """What `as_json` gave."""
        return cls(**{**data, "device_time": [DeviceTime(**each) for each in data.get("device_time", ())]})


def write_json(path: Path, data: Any) -> None:
    """Write a file that people may want to read, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def results_table(results: Iterable[Result]) -> str:
    """One line per result."""
    titles = ["workload", "front end", "limit is", "devices", "replicas", "in flight", "served/s", "limit/s", "ratio",
              "p50 ms", "p95 ms", "p99 ms", "errors", "CPU ms", "client ms", "PSS MiB"]  # fmt: skip
    return format_table(titles, [_row(result) for result in results], words=3)


def noise_note(results: Iterable[Result]) -> str:
    """A line about results that were disturbed; "" where none was."""
    most = max((result.foreign_cores for result in results), default=0.0)
    if most < _QUIET_CORES:
        return ""
    return f"The machine was not quiet: up to {most:.1f} cores were busy with something else. Measure again when it is."


def _row(result: Result) -> list[str]:
    cpu = dict(result.cpu_ms_per_request)
    client = cpu.pop("client", 0.0)
    in_flight = f"{result.concurrency}" if result.rate is None else f"{result.rate:g}/s"
    return [
        result.title,
        result.front_end,
        result.limit,
        "-" if result.devices is None else str(result.devices),
        str(result.replicas),
        in_flight,
        f"{result.requests_per_second:.1f}",
        "-" if result.limit_per_second is None else f"{result.limit_per_second:.1f}",
        "-" if result.ratio is None else f"{result.ratio:.3f}",
        f"{result.p50_ms:.1f}",
        f"{result.p95_ms:.1f}",
        f"{result.p99_ms:.1f}",
        ", ".join(f"{count} of {kind}" for kind, count in sorted(result.errors.items())) or "none",
        f"{sum(cpu.values()):.2f}",
        f"{client:.2f}",
        f"{sum(result.pss_mib.values()):.0f}",
    ]


def breakdown_table(result: Result) -> str:
    """Where one result's CPU time, memory and time go."""
    roles = list(dict.fromkeys([*result.cpu_ms_per_request, *result.pss_mib]))
    rows = [
        [
            role,
            f"{result.cpu_ms_per_request.get(role, 0.0):.2f}",
            f"{result.pss_mib[role]:.0f}" if role in result.pss_mib else "-",
        ]
        for role in roles
    ]
    text = format_table(["processes", "CPU ms a request", "PSS MiB"], rows, words=1)
    if result.hops_ms:
        hops = [[name.removesuffix("_ms").replace("_", " "), f"{value:.1f}"] for name, value in result.hops_ms.items()]
        text += "\n\n" + format_table(["hop", "mean ms"], hops, words=1)
    if result.device_time:
        text += f"\n\n{device_table(result.device_time)}\n{result.advice}"
    return text


def _rounded(value: Any) -> Any:
    """Four digits behind the point are more than a measurement has; NaN, which JSON has no word for, is null."""
    if isinstance(value, float):
        return round(value, 4) if value == value else None
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value
