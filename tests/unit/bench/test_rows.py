from __future__ import annotations

import dataclasses

import pytest

from bench.branch_time import BranchTime
from bench.front_end_memory import FrontEndMemory
from bench.memory import MemoryGrowth
from bench.overload import Overload
from bench.result import Result
from bench.row import BRANCHES, FRONT_END_MEMORY, LOAD, MEMORY, OVERLOAD, Row
from bench.rows import QUICK_ROWS, ROWS
from bench.setup import make_setup
from bench.workload import find

FIGURES = {LOAD: Result, MEMORY: MemoryGrowth, FRONT_END_MEMORY: FrontEndMemory, OVERLOAD: Overload, BRANCHES: BranchTime}


@pytest.mark.parametrize("row", [*ROWS, *QUICK_ROWS], ids=lambda row: row.name)
def test_a_row_can_be_set_up_and_has_the_figures_of_its_goals(row: Row) -> None:
    make_setup(find(row.workload), **{**row.windows, **row.setup})
    figures = {field.name for field in dataclasses.fields(FIGURES[row.kind])}
    assert {goal.figure for goal in row.goals} <= figures
    assert row.goals or row.reported in figures


def test_names_are_for_choosing_a_row() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
