"""The figures that have a goal, each as a ratio taken in one run; and the sweeps that the report draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import provenance
from bench.bench_error import BenchError
from bench.measure import measure
from bench.memory import measure_memory
from bench.progress import say
from bench.result import Result, format_table, noise_note, results_table
from bench.setup import make_setup
from bench.workload import find

_MEMORY = "memory"
GOAL_TITLES = ("row", "goal", "measured", "of windows", "reached")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of a row is to reach.

    Attributes:
        figure: Such as `ratio`, an attribute of the result.
        bound: The least, or the most, that is good enough.
        at_least: Whether more is better.
    """

    figure: str
    bound: float
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound

    def text(self) -> str:
        """Such as `ratio ≥ 0.96`."""
        return f"{self.figure.replace('_', ' ')} {'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of goals.

    Attributes:
        name: What is measured.
        workload: The workload's name.
        setup: Arguments of `make_setup`.
        goals: What is to be reached; none: a figure that is only reported.
    """

    name: str
    workload: str
    setup: Mapping[str, Any]
    goals: tuple[Goal, ...] = ()


def _sim(devices: int, concurrency: int, *goals: Goal) -> Row:
    load = {"devices": devices, "concurrency": (concurrency,), "front_end": "mms"}
    plural = "s" if devices > 1 else ""
    return Row(f"sim, {devices} device{plural}, {concurrency} in flight, mms", "sim", load, goals)


def _batched(devices: int, concurrency: int, front_end: str, *goals: Goal) -> Row:
    load = {"devices": devices, "concurrency": (concurrency,), "front_end": front_end}
    return Row(f"sim-batched, {devices} devices, {concurrency} in flight, {front_end}", "sim-batched", load, goals)


def _cpu(workload: str, in_flight: int, goal: float) -> Row:
    load = {"replicas": 2, "concurrency": (in_flight,), "front_end": "mms"}
    return Row(f"{workload}, 2 replicas, {in_flight} in flight, mms", workload, load, (Goal("ratio", goal),))


_P99 = Goal("p99_ms", 100.0, at_least=False)
ROWS = (
    _sim(4, 16, Goal("ratio", 0.96), _P99),
    _sim(8, 32, Goal("ratio", 0.96), _P99),
    _sim(4, 1, Goal("p50_ms", 45.0, at_least=False)),
    _batched(4, 64, "engine", Goal("ratio", 0.92)),
    _batched(8, 128, "engine", Goal("ratio", 0.90)),
    _batched(4, 1, "engine", Goal("p50_ms", 48.0, at_least=False)),
    _batched(4, 64, "mms"),
    _sim(1, 4),
    _sim(2, 8),
    _cpu("medium", 16, 0.97),
    _cpu("tiny", 16, 0.90),
    _cpu("noop", 32, 0.6),
    Row(
        "memory: 960 requests of tiny at once, 1 replica, engine",
        "tiny",
        {"replicas": 1, "concurrency": (960,), "front_end": "engine"},
        (Goal("beyond_bodies_mib", 1e6 / (1 << 20), at_least=False), Goal("answered", 960)),
    ),
)
_EIGHT_TIMES_ONE = 7.6

# Names of the rows that scaling compares.
_ONE, _EIGHT = "sim, 1 device, 4 in flight, mms", "sim, 8 devices, 32 in flight, mms"

SWEEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sim", {"devices": 4, "concurrency": (1, 2, 4, 8, 16, 32), "front_end": "mms"}),
    ("sim-batched", {"devices": 4, "concurrency": (1, 4, 16, 32, 64, 96), "front_end": "engine"}),
    ("tiny", {"replicas": 2, "concurrency": (1, 2, 4, 8, 16, 32), "front_end": "mms"}),
    ("matting", {"replicas": 2, "concurrency": (1, 2, 4, 8), "front_end": "mms"}),
)
_QUICK_ROWS = (
    Row("sim, 2 devices, 8 in flight, mms", "sim", {"devices": 2, "concurrency": (8,), "front_end": "mms"}),
    Row("sim-batched, 2 devices, engine", "sim-batched", {"devices": 2, "concurrency": (32,), "front_end": "engine"}),
    Row("tiny, 2 replicas", "tiny", {"replicas": 2, "concurrency": (8,), "front_end": "mms"}),
    Row("noop", "noop", {"concurrency": (8,), "front_end": "mms"}),
    Row(
        "memory: 48 requests of tiny at once, 1 replica, engine",
        "tiny",
        {"replicas": 1, "concurrency": (48,), "front_end": "engine"},
        (Goal("beyond_bodies_mib", 1e6 / (1 << 20), at_least=False), Goal("answered", 48)),
    ),
)
_QUICK_SWEEPS: tuple[tuple[str, dict[str, Any]], ...] = (("sim", {"devices": 2, "concurrency": (1, 4, 8), "front_end": "mms"}),)


def run(*, quick: bool = False, only: str | None = None) -> dict[str, Any]:
    """Measure all rows, or those whose name contains `only`, then the sweeps.

    Args:
        quick: A smoke run: small rows and windows too short to mean anything.
        only: Part of a row's name; the sweeps are then left out.
    """
    rows = [row for row in (_QUICK_ROWS if quick else ROWS) if only is None or only in row.name]
    if not rows:
        raise BenchError(f"--only {only}: no row's name contains that; there are {', '.join(row.name for row in ROWS)}")
    windows = {"seconds": 2.0, "warmup_s": 0.5, "repeat": 1} if quick else {"seconds": 10.0, "warmup_s": 2.0, "repeat": 3}
    data: dict[str, Any] = {"quick": quick, "machine": provenance.machine(), "date": provenance.now(),
                            "commit": provenance.commit(), "rows": [], "sweeps": []}  # fmt: skip
    for number, row in enumerate(rows, 1):
        say(f"row {number} of {len(rows)}: {row.name}")
        data["rows"].append({"name": row.name, **_measure_row(row, windows)})
    for workload, load in () if only is not None else _QUICK_SWEEPS if quick else SWEEPS:
        say(f"sweep: {workload}")
        seconds = 2.0 if quick else 6.0
        setup = make_setup(find(workload), **load, seconds=seconds, warmup_s=0.5 if quick else 1.0, trace=True)
        results = measure(setup)
        print(f"{results_table(results)}\n", flush=True)
        data["sweeps"].append([result.as_json() for result in results])
    return data


def goals_table(data: Mapping[str, Any]) -> str:
    """Goal, measured and whether it was reached, for each row; then what all rows came to."""
    results = [Result.from_json(row["result"]) for row in data["rows"] if row["kind"] != _MEMORY]
    tables = [format_table(GOAL_TITLES, goal_lines(data), words=2)]
    if results:
        tables = [results_table(results), *tables, noise_note(results)]
    return "\n\n".join(filter(None, tables))


def goal_lines(data: Mapping[str, Any]) -> list[list[str]]:
    """A line for each goal, under `GOAL_TITLES`."""
    lines = [line for row in data["rows"] for line in _goal_lines(row)]
    scaling = _scaling(data)
    if scaling is not None:
        reached = "yes" if scaling >= _EIGHT_TIMES_ONE else "NO"
        lines.append(["scaling: sim, 8 devices against 1", f"≥ {_EIGHT_TIMES_ONE} times", f"{scaling:.2f}", "", reached])
    return lines


def read(path: Path) -> dict[str, Any]:
    """What an earlier run wrote."""
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchError("there is no build/bench/suite.json yet: `python -m bench suite` makes it") from None
    return data


def _measure_row(row: Row, windows: Mapping[str, Any]) -> dict[str, Any]:
    goals: list[dict[str, Any]] = [{"text": goal.text(), "figure": goal.figure} for goal in row.goals]
    if row.name.startswith(_MEMORY):
        growth = measure_memory(make_setup(find(row.workload), **row.setup))
        print(f"{growth.table()}\n", flush=True)
        found, kind = growth.as_json(), _MEMORY
    else:
        result = measure(make_setup(find(row.workload), **row.setup, **windows))[0]
        print(f"{results_table([result])}\n", flush=True)
        found, kind = result.as_json(), "load"
    for goal, told in zip(row.goals, goals, strict=True):
        told["measured"] = found[goal.figure]
        told["reached"] = found[goal.figure] is not None and goal.reached(found[goal.figure])
    return {"kind": kind, "result": found, "goals": goals}


def _goal_lines(row: Mapping[str, Any]) -> list[list[str]]:
    ratios = " ".join(f"{ratio:.3f}" for ratio in row["result"].get("ratios", ()))
    wrong = sum(row["result"]["errors"].values())
    lines = [
        [row["name"], goal["text"], f"{goal['measured']:.3f}" if goal["measured"] is not None else "-",
         ratios if goal["figure"] == "ratio" else "", "yes" if goal["reached"] else "NO"]
        for goal in row["goals"]
    ] or [[row["name"], "(reported)", f"ratio {row['result']['ratio']:.3f}", ratios, ""]]  # fmt: skip
    if wrong:
        lines.append([row["name"], "no errors", str(wrong), "", "NO"])
    return lines


def _scaling(data: Mapping[str, Any]) -> float | None:
    """How many times the throughput of one device eight have; None where one of the two was not measured."""
    rates = {row["name"]: row["result"].get("requests_per_second") for row in data["rows"]}
    one, eight = rates.get(_ONE), rates.get(_EIGHT)
    return eight / one if one and eight else None
