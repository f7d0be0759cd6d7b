"""What 100,000 inferences cost, as lines of a table, and which type is the cheapest that is quick enough. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cost_measurement import CostMeasurement

INFERENCES = 100_000
_S_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class CostLine:
    """One measurement with its price.

    Attributes:
        measured: What was measured.
        usd_per_hour: Of one instance; None: not known.
        usd_per_100k: Of 100,000 inferences on an instance that is busy all the time; None: not known.
    """

    measured: CostMeasurement
    usd_per_hour: float | None
    usd_per_100k: float | None


def cost_lines(measured: Sequence[CostMeasurement], usd_per_hour: Mapping[str, float]) -> list[CostLine]:
    """Put prices to measurements, the cheapest inference first, what has no price last.

    Args:
        measured: In any order.
        usd_per_hour: Of one instance, by type.
    """
    lines = []
    for each in measured:
        hour = usd_per_hour.get(each.instance)
        per_100k = None if hour is None else hour / (each.throughput_per_s * _S_PER_HOUR) * INFERENCES
        lines.append(CostLine(each, hour, per_100k))
    return sorted(lines, key=lambda line: (line.usd_per_100k is None, line.usd_per_100k or 0.0, line.measured.instance))


def conclusions(lines: Sequence[CostLine], goal_ms: float) -> list[str]:
    """Which type is the cheapest of those whose average latency meets a goal: an inference under full load, and an hour.

    What has no average latency, or no price, is not looked at.
    """
    quick = [
        line
        for line in lines
        if line.usd_per_100k is not None and line.measured.mean_ms is not None and line.measured.mean_ms <= goal_ms
    ]
    if not quick:
        return [f"none of them is known to answer within {goal_ms:g} ms on average"]
    inference, hour = min(quick, key=_per_100k), min(quick, key=_per_hour)
    return [
        f"within {goal_ms:g} ms on average, the cheapest inference: {inference.measured.instance}, "
        f"{_per_100k(inference):.2f} USD for 100,000 under full load",
        f"within {goal_ms:g} ms on average, the cheapest hour: {hour.measured.instance}, {_per_hour(hour):.2f} USD",
    ]


def cost_table(lines: Sequence[CostLine]) -> Table:
    """The table for the terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("instance")
    for title in ("USD/h", "first ms", "mean ms", "inferences/s", "USD for 100,000"):
        table.add_column(title, justify="right")
    table.add_column("measured")
    for line in lines:
        each = line.measured
        table.add_row(
            each.instance,
            _figure(line.usd_per_hour, "{:.2f}"),
            _figure(each.first_ms, "{:.0f}"),
            _figure(each.mean_ms, "{:.0f}"),
            ("≤ " if each.at_best else "") + f"{each.throughput_per_s:.1f}",
            ("≥ " if each.at_best and line.usd_per_100k is not None else "") + _figure(line.usd_per_100k, "{:.2f}"),
            f"{each.date[:10]}, {each.source}",
        )
    return table


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _of(name: str) -> Callable[[CostLine], float]:
    def get(line: CostLine) -> float:
        value: float | None = getattr(line, name)
        return float("inf") if value is None else value

    return get


_per_100k, _per_hour = _of("usd_per_100k"), _of("usd_per_hour")
