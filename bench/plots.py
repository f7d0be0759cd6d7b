"""The report's pictures, as SVG text."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")  # before pyplot looks for a display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from bench.container_log import HOPS
from bench.device_time import DeviceTime, causes_of, spoken
from bench.image_figures import ImageFigures, speed_up
from bench.result import Result

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "bench",  # the same figures give the same file
}
_BLUE, _ORANGE, _GREY = "#2f6fb0", "#d9792b", "#8a8f98"
_HOP_COLOURS = {
    "queue_ms": "#d5d8dd",
    "preprocess_ms": "#8fbf8f",
    "stage_1_ms": "#2f6fb0",
    "stage_2_ms": "#7fb0dd",
    "predict_ms": "#4a8fcb",
    "postprocess_ms": "#d9a05b",
}
_CAUSE_COLOURS = ("#d9792b", "#d9a05b", "#8fbf8f", "#b58fc9", "#c96f6f", "#7fb0dd", "#a8a878", "#6fb0a8")
_NO_TRAFFIC = "no_traffic"
_POOL_HOPS = ("preprocess_ms", "postprocess_ms")


def throughput_and_latency(results: Sequence[Result]) -> str:
    """Served requests per second beside the limit, and latency percentiles, by requests in flight."""
    with plt.rc_context(_STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.1), layout="constrained")
        in_flight = [result.concurrency for result in results]
        left.plot(in_flight, [result.requests_per_second for result in results], "o-", color=_BLUE, label="served")
        limits = [(r.concurrency, r.limit_per_second) for r in results if r.limit_per_second is not None]
        if limits:
            left.plot(*zip(*limits, strict=True), "--", color=_GREY, label=f"limit ({results[0].limit})")
        left.set(title="requests per second", xlabel="requests in flight", ylim=(0, None))
        for name, colour in (("p50_ms", _BLUE), ("p95_ms", "#7fb0dd"), ("p99_ms", _ORANGE)):
            right.plot(in_flight, [getattr(r, name) for r in results], "o-", color=colour, label=name.removesuffix("_ms"))
        right.set(title="latency, ms", xlabel="requests in flight", ylim=(0, None))
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xticks(in_flight)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.minorticks_off()
            axes.legend()
        return _svg(figure)


def time_per_hop(results: Sequence[Result]) -> str:
    """Mean milliseconds per hop, one bar for each number of requests in flight."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9.6, 0.9 + 0.36 * len(results)), layout="constrained")
        names = [name for name in HOPS if any(name in result.hops_ms for result in results)]
        left = [0.0] * len(results)
        for name in names:
            widths = [result.hops_ms.get(name, 0.0) for result in results]
            axes.barh(range(len(results)), widths, 0.7, left, color=_HOP_COLOURS[name], label=_spoken(name))
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(results)), [f"{result.concurrency} in flight" for result in results])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(title="mean time of a request, ms, as the container logged it")
        axes.legend(ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -0.14))
        return _svg(figure)


def device_time(devices: Sequence[DeviceTime]) -> str:
    """A bar for each device: the share in which it worked, then the causes for which it did not."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9.6, 1.1 + 0.3 * len(devices)), layout="constrained")
        parts = [("busy", _BLUE, [each.busy for each in devices])]
        other = iter(itertools.cycle(_CAUSE_COLOURS))
        for cause in causes_of(devices):
            colour = "#d5d8dd" if cause == _NO_TRAFFIC else next(other)
            parts.append((spoken(cause), colour, [each.idle.get(cause, 0.0) for each in devices]))
        left = [0.0] * len(devices)
        for name, colour, shares in parts:
            axes.barh(range(len(devices)), [share * 100 for share in shares], 0.7, left, color=colour, label=name)
            left = [start + share * 100 for start, share in zip(left, shares, strict=True)]
        axes.set_yticks(range(len(devices)), [each.device for each in devices])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(title="time of each device, per cent", xlim=(0, 100))
        axes.legend(ncols=min(6, len(parts)), loc="upper center", bbox_to_anchor=(0.5, -0.1))
        return _svg(figure)


def by_workers(runs: Sequence[ImageFigures]) -> str:
    """Total time, speed-up beside the ideal, and medians of transformation and inference, by workers."""
    with plt.rc_context(_STYLE):
        figure, (times, speeds, medians) = plt.subplots(1, 3, figsize=(9.6, 3.1), layout="constrained")
        workers = [run.workers for run in runs]
        times.plot(workers, [run.seconds for run in runs], "o-", color=_BLUE)
        times.set(title="total, s", xlabel="workers", ylim=(0, None))
        ideal = [count / workers[0] for count in workers]
        speeds.plot(workers, ideal, "--", color=_GREY, label="ideal")
        speeds.plot(workers, [speed_up(run, runs[0]) for run in runs], "o-", color=_BLUE, label="measured")
        speeds.set(title="speed-up", xlabel="workers", ylim=(0, None))
        speeds.legend()
        for name, colour in (("transformation", _ORANGE), ("inference", _BLUE)):
            told = [(run.workers, p50) for run in runs if (p50 := getattr(run, f"{name}_p50_ms")) is not None]
            if told:
                medians.plot(*zip(*told, strict=True), "o-", color=colour, label=name)
                medians.legend()
        medians.set(title="p50, ms", xlabel="workers", ylim=(0, None))
        for axes in (times, speeds, medians):
            axes.set_xticks(workers)
        return _svg(figure)


def gantt(trace: Sequence[dict[str, Any]]) -> str:
    """Requests over replicas and stages: a row for each stage of each replica, and as many for the pool as were busy.

    A request has one colour in all rows; a batch is a bar that is outlined once and says how many share it.
    """
    bars = list(_bars(trace))
    start = min(bar["started"] for bar in bars)
    rows = list(dict.fromkeys(sorted((bar["row"] for bar in bars), key=_row_order)))
    with plt.rc_context(_STYLE):
        tops, height = _tops(rows)
        figure, axes = plt.subplots(figsize=(9.6, 0.9 + 0.26 * height), layout="constrained")
        colours = matplotlib.colormaps["turbo"]
        for bar in bars:
            _draw(axes, bar, tops[bar["row"]], start, colours(0.06 + 0.88 * bar["order"] / max(1, len(trace) - 1)))
        named = [row for row in rows if _row_name(row)]
        axes.set_yticks([tops[row] + _row_height(row) / 2 for row in named], [_row_name(row) for row in named])
        axes.set_ylim(height, 0)
        axes.grid(visible=False, axis="y")
        axes.set(title=f"{len(trace)} requests in a row, a colour each", xlabel="ms")
        return _svg(figure)


def _bars(trace: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """What is drawn: hops in their rows; of a batch one bar, in the colour of its first request."""
    seen = set[tuple[Any, ...]]()
    lanes: dict[str, list[float]] = {name: [] for name in _POOL_HOPS}
    pooled = []
    for order, request in enumerate(trace):
        for name, started, ended, batch in request["spans"]:
            bar = {"order": order, "started": started, "ended": ended, "batch": batch}
            if name in _POOL_HOPS:
                pooled.append({**bar, "name": name})
                continue
            row = (1, str(request["replica"]), name)
            if (row, started, ended) not in seen:
                seen.add((row, started, ended))
                yield {**bar, "row": row}
    for bar in sorted(pooled, key=lambda bar: float(bar["started"])):
        yield {**bar, "row": (0 if bar["name"] == "preprocess_ms" else 2, bar["name"], _lane(lanes[bar["name"]], bar))}


def _lane(ends: list[float], bar: dict[str, Any]) -> int:
    """The first lane that is free when a bar begins; the log does not say which pool worker it was."""
    for lane, end in enumerate(ends):
        if end <= bar["started"]:
            ends[lane] = bar["ended"]
            return lane
    ends.append(bar["ended"])
    return len(ends) - 1


def _tops(rows: Iterable[tuple[Any, ...]]) -> tuple[dict[tuple[Any, ...], float], float]:
    """Where each row begins, and where the last one ends."""
    tops, height = {}, 0.0
    for row in rows:
        tops[row] = height
        height += _row_height(row)
    return tops, height


def _row_height(row: tuple[Any, ...]) -> float:
    return 1.0 if row[0] == 1 else 0.45  # the pool has many rows, and is not what the picture is about


def _draw(axes: Axes, bar: dict[str, Any], top: float, start: float, colour: Any) -> None:
    begin, width = (bar["started"] - start) * 1e3, (bar["ended"] - bar["started"]) * 1e3
    pooled = bar["row"][0] != 1
    middle, thick = top + _row_height(bar["row"]) / 2, 0.85 * _row_height(bar["row"])
    axes.barh(middle, width, thick, begin, color=colour, alpha=0.45 if pooled else 0.85, edgecolor="white", linewidth=0.4)
    if bar["batch"] > 1:
        axes.text(begin + width / 2, middle, str(bar["batch"]), ha="center", va="center", fontsize=6.5)


def _row_order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    group, first, second = row
    return (group, int(first) if str(first).isdigit() else 0, second)


def _row_name(row: tuple[Any, ...]) -> str:
    group, first, second = row
    if group == 1:
        return f"replica {first}, {_spoken(second)}"
    return _spoken(first) if second == 0 else ""


def _spoken(hop: str) -> str:
    return hop.removesuffix("_ms").replace("_", " ")


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()
