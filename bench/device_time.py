"""What each device did with its time while it was measured: busy, or idle and for what cause, as the container counts it.

Read from `/metrics` at both ends of a window. A front end that has no such page, or a container that does not count, gives
nothing, and nothing is shown.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin

from prometheus_client.parser import text_string_to_metric_families

from bench.format_table import format_table

_T = TypeVar("_T")

METRIC = "multigpu_device_seconds_total"
GPU_METRIC = "multigpu_gpu_utilization_ratio"
_BUSY = "busy"
_TIMEOUT_S = 10.0

# Seconds since the container's start, by device and state: `busy`, or the cause for which it was idle.
DeviceSeconds = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class DeviceTime:
    """One device in one window.

    Attributes:
        device: Such as `cuda:0`.
        seconds: How much of its time has been accounted for.
        busy: Share of that in which it worked.
        idle: Share by cause in which it did not, such as `decode` or `no_traffic`.
    """

    device: str
    seconds: float
    busy: float
    idle: dict[str, float]


def read_device_seconds(url: str) -> DeviceSeconds:
    """Ask the container that listens at an address; empty where it does not say."""
    return _read(url, device_seconds) or {}


def read_advice(url: str) -> str:
    """What the container that listens at an address would change; "" where it does not say."""
    asked = urllib.request.Request(urljoin(url, "/metrics"), headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as response:
            return str(json.load(response).get("advice", ""))
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, AttributeError):
        return ""


def read_gpu_utilization(url: str) -> list[float]:
    """What the driver says of each GPU just now: the share of time in which a kernel ran; empty where there is no driver."""
    return _read(url, gpu_utilization) or []


def gpu_utilization(text: str) -> list[float]:
    """The gauge in a page of metrics, for each GPU."""
    families = text_string_to_metric_families(text)
    return [float(sample.value) for family in families for sample in family.samples if sample.name == GPU_METRIC]


def device_seconds(text: str) -> DeviceSeconds:
    """The counter in a page of metrics."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == METRIC:
                found[sample.labels["device"], sample.labels["state"]] = float(sample.value)
    return found


def device_time(before: DeviceSeconds, after: DeviceSeconds) -> list[DeviceTime]:
    """What passed between two looks; a device of which nothing has been accounted for is left out.

    Shares are of the time that the container has settled meanwhile, which is the window but for its ends.
    """
    spent = defaultdict[str, dict[str, float]](dict)
    for (device, state), seconds in sorted(after.items()):
        spent[device][state] = max(0.0, seconds - before.get((device, state), 0.0))
    told = []
    for device, by_state in spent.items():
        total = sum(by_state.values())
        if total > 0:
            busy = by_state.pop(_BUSY, 0.0) / total
            told.append(DeviceTime(device, total, busy, {cause: s / total for cause, s in by_state.items() if s > 0}))
    return told


def device_table(devices: Iterable[DeviceTime]) -> str:
    """A line for each device, for a terminal."""
    titles, rows = device_lines(list(devices))
    return format_table(titles, rows, words=1)


def device_lines(devices: list[DeviceTime]) -> tuple[list[str], list[list[str]]]:
    """Titles, and a line for each device: its busy share, then a column for each cause that any of them has."""
    causes = causes_of(devices)
    rows = [[each.device, _percent(each.busy), *(_percent(each.idle.get(cause, 0.0)) for cause in causes)] for each in devices]
    return ["device", "busy", *(f"idle: {spoken(cause)}" for cause in causes)], rows


def causes_of(devices: Iterable[DeviceTime]) -> list[str]:
    """All causes, the one that takes most first."""
    totals = defaultdict[str, float](float)
    for each in devices:
        for cause, share in each.idle.items():
            totals[cause] += share
    return sorted(totals, key=lambda cause: (-totals[cause], cause))


def spoken(cause: str) -> str:
    """A cause as people say it."""
    return cause.replace("_", " ")


def _read(url: str, parse: Callable[[str], _T]) -> _T | None:
    """What the page of metrics at an address says; None where there is none."""
    try:
        with urllib.request.urlopen(urljoin(url, "/metrics"), timeout=_TIMEOUT_S) as response:
            return parse(response.read().decode())
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
        return None


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
