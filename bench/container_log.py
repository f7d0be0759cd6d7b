"""What the container's log says of the requests that it served: milliseconds per hop, and spans where it traced them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

# The order in which a request passes them, for tables and plots.
HOPS = ("queue_ms", "preprocess_ms", "stage_1_ms", "stage_2_ms", "predict_ms", "postprocess_ms")


@dataclass(frozen=True, slots=True)
class Span:
    """One hop of one request.

    Attributes:
        name: Such as `stage_1_ms`.
        started: Monotonic seconds.
        ended: Monotonic seconds.
        batch_size: How many requests shared it.
    """

    name: str
    started: float
    ended: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """One request, as its line in the log has it.

    Attributes:
        request_id: Its name.
        time: When it was answered, seconds of the epoch.
        status: HTTP status.
        replica: Which replica had it; "" where none had.
        hops_ms: Milliseconds per hop.
        total_ms: In all.
        spans: When each hop was; empty unless `MULTIGPU_TRACE` is set.
    """

    request_id: str
    time: float
    status: int
    replica: str
    hops_ms: dict[str, float]
    total_ms: float
    spans: tuple[Span, ...] = field(default=())


def events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The log's events; what other programs print is left out."""
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            yield event


def served_requests(lines: Iterable[str]) -> list[ServedRequest]:
    """All requests in a log, in the order of their answers."""
    return [_request(event) for event in events(lines) if event["event"] == "request"]


def mean_hops_ms(requests: Iterable[ServedRequest]) -> dict[str, float]:
    """Mean milliseconds per hop of the requests that were answered with 200."""
    found = defaultdict[str, list[float]](list)
    count = 0
    for request in requests:
        if request.status == 200:
            count += 1
            for name, value in request.hops_ms.items():
                found[name].append(value)
    order = [*(name for name in HOPS if name in found), *sorted(found.keys() - set(HOPS))]
    return {name: sum(found[name]) / count for name in order}


def _request(event: dict[str, Any]) -> ServedRequest:
    hops = {name: float(value) for name, value in event.items() if name.endswith("_ms") and name != "total_ms"}
    return ServedRequest(
        request_id=str(event.get("request_id", "")),
        time=datetime.fromisoformat(event["time"]).timestamp(),
        status=int(event.get("status", 0)),
        replica=str(event.get("replica", "")),
        hops_ms=hops,
        total_ms=float(event.get("total_ms", 0.0)),
        spans=tuple(Span(name, begin, end, batch) for name, begin, end, batch in event.get("spans") or ()),
    )
