"""How long branches take that work at the same time: beside the slowest of them alone, and beside all one after another.

In this process, without a container around them: a pipeline of one stage, called by one thread.
"""

from __future__ import annotations

import dataclasses
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import provenance
from bench.bench_error import BenchError
from bench.format_table import format_table
from bench.progress import say
from bench.setup import Setup

from multigpu_inference import Branches, Pipeline  # isort: skip

_ROUNDS = 5  # of everything in turn, so that a noisy moment is one of all
_CALLS = 20  # of each, in each round


@dataclass(frozen=True)
class BranchTime:
    """Medians, in milliseconds.

    Attributes:
        workload: Its name.
        alone_ms: Each branch by itself.
        together_ms: All branches at the same time.
        of_slowest: That divided by the slowest branch alone.
        of_sum: That divided by all branches one after another.
        command: What reproduces it.
        machine: Cores and CPU model.
        date: UTC.
        commit: Of this repository.
        errors: None: what fails ends the measurement.
    """

    workload: str
    alone_ms: dict[str, float]
    together_ms: float
    of_slowest: float
    of_sum: float
    command: str
    machine: dict[str, Any]
    date: str
    commit: str
    errors: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """For a terminal."""
        titles = ["workload", *(f"{name} alone" for name in self.alone_ms), "together", "of the slowest", "of the sum"]
        milliseconds = [f"{ms:.1f} ms" for ms in (*self.alone_ms.values(), self.together_ms)]
        return format_table(titles, [[self.workload, *milliseconds, f"{self.of_slowest:.3f}", f"{self.of_sum:.3f}"]], words=1)


def measure_branches(setup: Setup) -> BranchTime:
    """Time the branches of a workload's script.

    Raises:
        BenchError: where it has none.
    """
    workload = setup.workload
    if workload.script is None or not workload.name.endswith("-branches"):
        raise BenchError(f"--branches: {workload.name} has no branches")
    sys.path.insert(0, str(workload.script.parent))  # processes of a branch import it as well
    script: Any = importlib.import_module(workload.script.stem)
    item = script.input_fn(workload.inputs()[0], workload.content_type)
    whole, *single = (Branches(branches) for branches in (script.load_branches(), *_one_by_one(script.load_branches())))
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # a core for each branch, as far as there are any
    stages = {"together": whole, **{next(iter(stage.branches)): stage for stage in single}}
    try:
        times = _times({name: Pipeline([stage]) for name, stage in stages.items()}, item, workload.name)
    finally:
        for stage in stages.values():
            stage.close()
    together = times.pop("together")
    return BranchTime(
        workload=workload.name,
        alone_ms=times,
        together_ms=together,
        of_slowest=together / max(times.values()),
        of_sum=together / sum(times.values()),
        command=f"python -m bench run {workload.name} --branches",
        machine=provenance.machine(),
        date=provenance.now(),
        commit=provenance.commit(),
    )


def _one_by_one(branches: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: branch} for name, branch in branches.items()]


def _times(calls: dict[str, Callable[[Any], Any]], item: Any, workload: str) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(item)  # warms
    for number in range(_ROUNDS):
        say(f"{workload}: branches, round {number + 1} of {_ROUNDS}")
        for name, call in calls.items():
            for _ in range(_CALLS):
                began = time.perf_counter()
                call(item)
                times[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}
