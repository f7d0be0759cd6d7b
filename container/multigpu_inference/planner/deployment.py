"""A candidate: settings that the planner may recommend, and what the engine would make of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from multigpu_inference.config import MAX_FRONT_END_WORKERS, MMS, Settings
from multigpu_inference.engine.capacity import DEFAULT_BATCH_SIZE, Capacity, plan_capacity
from multigpu_inference.engine.placement import Devices, plan_placement
from multigpu_inference.planner.machine import Machine


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings; None stands for the engine's default.

    Attributes:
        placement: `MULTIGPU_PLACEMENT`.
        num_replicas: `MULTIGPU_NUM_REPLICAS`.
        max_batch_size: `MULTIGPU_MAX_BATCH_SIZE`.
        preprocess_workers: `MULTIGPU_PREPROCESS_WORKERS`.
    """

    placement: str = "ring"
    num_replicas: int | None = None
    max_batch_size: int | None = None
    preprocess_workers: int | None = None

    def environment(self) -> dict[str, str]:
        """All four as variables; the empty string stands for a default."""
        values = {
            "MULTIGPU_PLACEMENT": self.placement,
            "MULTIGPU_NUM_REPLICAS": self.num_replicas,
            "MULTIGPU_MAX_BATCH_SIZE": self.max_batch_size,
            "MULTIGPU_PREPROCESS_WORKERS": self.preprocess_workers,
        }
        return {name: "" if value is None else str(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the engine makes of a candidate on a machine.

    Attributes:
        candidate: The settings.
        placement: The devices of each replica, by the names that the engine gives them.
        devices: The same, by the machine's devices.
        capacity: Its counts and bounds.
        max_batch_size: Items that a stage takes at a time, at most.
        in_flight: Requests that clients can have in flight: as many as the engine works on and the front end lets in.
    """

    candidate: Candidate
    placement: tuple[Devices, ...]
    devices: tuple[Devices, ...]
    capacity: Capacity
    max_batch_size: int
    in_flight: int


def deploy(candidate: Candidate, settings: Settings, machine: Machine, stages: int) -> Deployment:
    """Work out what the engine would: with its own rules.

    Raises:
        SettingsError: where the placement does not fit the machine.
    """
    engine = dataclasses.replace(
        settings.engine,
        placement=candidate.placement,
        num_replicas=candidate.num_replicas,
        max_batch_size=candidate.max_batch_size,
        preprocess_workers=candidate.preprocess_workers,
    )
    capacity = plan_capacity(engine, machine.gpus, machine.cores, stages)
    names = machine.names(capacity.num_replicas, stages)
    placement = plan_placement(names, stages, capacity.num_replicas, candidate.placement)
    return Deployment(
        candidate,
        placement,
        tuple(tuple(machine.device(name) for name in replica) for replica in placement),
        capacity,
        candidate.max_batch_size or DEFAULT_BATCH_SIZE["cuda" if machine.gpus else "cpu"],
        _in_flight(settings, capacity),
    )


def _in_flight(settings: Settings, capacity: Capacity) -> int:
    """Multi-model-server has a process for each request in flight, so a limited number of them; the HTTP front end has not."""
    if settings.front_end.kind != MMS:
        return capacity.admitted
    return min(capacity.admitted, settings.front_end.workers or MAX_FRONT_END_WORKERS)
