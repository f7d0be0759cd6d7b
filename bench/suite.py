"""Measures the figures that have a goal, each as a ratio taken in one run, and the sweeps that the report draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import provenance
from bench.bench_error import BenchError
from bench.format_table import format_table
from bench.measure import measure
from bench.progress import say
from bench.result import Result, noise_note, results_table
from bench.row import LOAD
from bench.rows import EIGHT, EIGHT_TIMES_ONE, ONE, QUICK_ROWS, QUICK_SWEEPS, ROWS, SWEEPS
from bench.setup import make_setup
from bench.workload import find

GOAL_TITLES = ("row", "goal", "measured", "of windows", "reached")


def run(*, quick: bool = False, only: str | None = None) -> dict[str, Any]:
    """Measure all rows, or those whose name contains `only`, then the sweeps.

    Args:
        quick: A smoke run: small rows and windows too short to mean anything.
        only: Part of a row's name; the sweeps are then left out.
    """
    rows = [row for row in (QUICK_ROWS if quick else ROWS) if only is None or only in row.name]
    if not rows:
        raise BenchError(f"--only {only}: no row's name contains that; there are {', '.join(row.name for row in ROWS)}")
    windows = {"seconds": 2.0, "warmup_s": 0.5, "repeat": 1} if quick else {"seconds": 10.0, "warmup_s": 2.0, "repeat": 3}
    data: dict[str, Any] = {"quick": quick, "machine": provenance.machine(), "date": provenance.now(),
                            "commit": provenance.commit(), "rows": [], "sweeps": []}  # fmt: skip
    for number, row in enumerate(rows, 1):
        say(f"row {number} of {len(rows)}: {row.name}")
        data["rows"].append(row.measure(windows))
    for workload, load in () if only is not None else QUICK_SWEEPS if quick else SWEEPS:
        say(f"sweep: {workload}")
        seconds = 2.0 if quick else 6.0
        setup = make_setup(find(workload), **load, seconds=seconds, warmup_s=0.5 if quick else 1.0, trace=True)
        results = measure(setup)
        print(f"{results_table(results)}\n", flush=True)
        data["sweeps"].append([result.as_json() for result in results])
    return data


def goals_table(data: Mapping[str, Any]) -> str:
    """Goal, measured and whether it was reached, for each row; then what all rows came to."""
    results = [Result.from_json(row["result"]) for row in data["rows"] if row["kind"] == LOAD]
    tables = [format_table(GOAL_TITLES, goal_lines(data), words=2)]
    if results:
        tables = [results_table(results), *tables, noise_note(results)]
    return "\n\n".join(filter(None, tables))


def goal_lines(data: Mapping[str, Any]) -> list[list[str]]:
    """A line for each goal, under `GOAL_TITLES`."""
    lines = [line for row in data["rows"] for line in _goal_lines(row)]
    scaling = _scaling(data)
    if scaling is not None:
        reached = "yes" if scaling >= EIGHT_TIMES_ONE else "NO"
        lines.append(["scaling: sim, 8 devices against 1", f"≥ {EIGHT_TIMES_ONE} times", f"{scaling:.2f}", "", reached])
    return lines


def read(path: Path) -> dict[str, Any]:
    """What an earlier run wrote."""
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchError("there is no build/bench/suite.json yet: `python -m bench suite` makes it") from None
    return data


def _goal_lines(row: Mapping[str, Any]) -> list[list[str]]:
    ratios = " ".join(f"{ratio:.3f}" for ratio in row["result"].get("ratios", ()))
    wrong = sum(row["result"]["errors"].values())
    lines = [
        [row["name"], goal["text"], f"{goal['measured']:.3f}" if goal["measured"] is not None else "-",
         ratios if goal["figure"] == "ratio" else "", "yes" if goal["reached"] else "NO"]
        for goal in row["goals"]
    ] or [[row["name"], "(reported)", _reported(row), ratios, ""]]  # fmt: skip
    if wrong:
        lines.append([row["name"], "no errors", str(wrong), "", "NO"])
    return lines


def _reported(row: Mapping[str, Any]) -> str:
    figure = row.get("reported", "ratio")
    value = row["result"][figure]
    return f"{figure.replace('_', ' ')} {value:.3f}" if value is not None else "-"


def _scaling(data: Mapping[str, Any]) -> float | None:
    """How many times the throughput of one device eight have; None where one of the two was not measured."""
    rates = {row["name"]: row["result"].get("requests_per_second") for row in data["rows"]}
    one, eight = rates.get(ONE), rates.get(EIGHT)
    return eight / one if one and eight else None
