"""What a check has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multigpu_inference.engine.placement import Devices
from multigpu_inference.messages import ScriptInfo
from multigpu_inference.planner.sample import Sample


@dataclass(frozen=True, slots=True)
class FunctionPlace:
    """Where a function runs: `pool` or `replica`, and why where that is not the pool."""

    runs_in: str
    because: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """What requests were answered.

    Attributes:
        status: The first that was not 200, else 200.
        reason: Why, in the words of the answer, where it was not 200.
        content_type: Of the answer.
        size: Of the answer's body, in bytes.
        milliseconds: By hop: the median of those requests that came after the first.
    """

    status: int
    reason: str | None
    content_type: str
    size: int
    milliseconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check has found.

    Attributes:
        script: The script's name.
        info: What the probe read from it.
        placement: The devices of each replica.
        gpus: GPUs that can be used.
        pool_workers: CPU processes of the pool.
        load_ms: What each replica's model took to load.
        places: By function: where it runs, once that has been found out.
        sample: The request that was tried; None where there was none.
        answered: What it was answered; None where none was tried.
        failures: Log lines of functions that failed.
        streams: Batches that a stage works on at a time.
        branches: Of stages that are made of branches: each branch's name, and how many batches it works on at a time.
    """

    script: str
    info: ScriptInfo
    placement: tuple[Devices, ...]
    gpus: int
    pool_workers: int
    load_ms: tuple[float, ...]
    places: Mapping[str, FunctionPlace]
    sample: Sample | None
    answered: Answered | None
    failures: tuple[Mapping[str, Any], ...] = field(default=())
    streams: int = 1
    branches: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_stages(self) -> bool:
        """Whether the model is a chain of stages."""
        return self.answered is not None and "stage_1_ms" in self.answered.milliseconds

    @property
    def works(self) -> bool:
        """Whether what was tried was answered."""
        return self.answered is None or self.answered.status == 200
