"""One line of the table of goals: what is measured, how, and what it is to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.branch_time import measure_branches
from bench.front_end_memory import front_end_memory_table, measure_front_end_memory
from bench.goal import Goal
from bench.measure import measure
from bench.memory import measure_memory
from bench.overload import measure_overload
from bench.result import results_table
from bench.setup import Setup, make_setup
from bench.workload import find

# Kinds of rows, in the JSON too.
LOAD, MEMORY, FRONT_END_MEMORY, OVERLOAD, BRANCHES = "load", "memory", "front-end memory", "overload", "branches"


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured.

    Attributes:
        name: For people.
        workload: The workload's name.
        setup: Arguments of `make_setup`.
        goals: What is to be reached; none: a figure that is only reported.
        kind: `LOAD`, `MEMORY`, `FRONT_END_MEMORY`, `OVERLOAD` or `BRANCHES`.
        windows: Lengths and number of windows, where they are others than the suite's.
        reported: The figure that is told where there is no goal.
    """

    name: str
    workload: str
    setup: Mapping[str, Any]
    goals: tuple[Goal, ...] = ()
    kind: str = LOAD
    windows: Mapping[str, Any] = field(default_factory=dict)
    reported: str = "ratio"

    def measure(self, windows: Mapping[str, Any]) -> dict[str, Any]:
        """Measure it and print what came of it; the row of the JSON.

        Args:
            windows: Lengths and number of windows, as arguments of `make_setup`.
        """
        setup = make_setup(find(self.workload), **{**windows, **self.windows, **self.setup})
        found, table = _MEASURES[self.kind](setup)
        print(f"{table}\n", flush=True)
        goals = [
            {"text": goal.text(), "figure": goal.figure, "measured": found[goal.figure],
             "reached": found[goal.figure] is not None and goal.reached(found[goal.figure])}
            for goal in self.goals
        ]  # fmt: skip
        return {"name": self.name, "kind": self.kind, "result": found, "goals": goals, "reported": self.reported}


def _load(setup: Setup) -> tuple[dict[str, Any], str]:
    result = measure(setup)[0]
    return result.as_json(), results_table([result])


def _memory(setup: Setup) -> tuple[dict[str, Any], str]:
    growth = measure_memory(setup)
    return growth.as_json(), growth.table()


def _front_end_memory(setup: Setup) -> tuple[dict[str, Any], str]:
    found = measure_front_end_memory(setup)
    return found.as_json(), front_end_memory_table(found)


def _overload(setup: Setup) -> tuple[dict[str, Any], str]:
    found = measure_overload(setup)
    return found.as_json(), found.table()


def _branches(setup: Setup) -> tuple[dict[str, Any], str]:
    found = measure_branches(setup)
    return found.as_json(), found.table()


_MEASURES = {LOAD: _load, MEMORY: _memory, FRONT_END_MEMORY: _front_end_memory, OVERLOAD: _overload, BRANCHES: _branches}
