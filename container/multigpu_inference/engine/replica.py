"""The replicas: one process for each copy of the model, each shown its own devices and no others.

    placement ("cuda:2", "cuda:3")  ──►  CUDA_VISIBLE_DEVICES=2,3, context.devices ("cuda:0", "cuda:1")

A process for each, because a CUDA error that sticks poisons the process that had it, and one interpreter's lock cannot issue
the work of many GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence

from multigpu_inference.child_process import KEEP_MEMORY, Command
from multigpu_inference.config import EngineSettings
from multigpu_inference.engine.capacity import Capacity
from multigpu_inference.engine.devices import DEVICE_ORDER, visible_to
from multigpu_inference.engine.placement import Devices
from multigpu_inference.engine.process_pool import threads
from multigpu_inference.engine.slow_replicas import SlowReplicas
from multigpu_inference.engine.worker_group import Prepare, WorkerGroup

_PREFIX = "replica-"


class Replicas(WorkerGroup):
    """The replica workers."""

    def __init__(
        self,
        settings: EngineSettings,
        capacity: Capacity,
        placement: Sequence[Devices],
        hang_after_s: float,
        prepare: Prepare | None,
    ) -> None:
        """One worker for each entry of the placement; nothing is started yet."""
        # What a request by itself waits for others that never come, in each stage.
        batch_wait_s = max(map(len, placement)) * settings.max_batch_delay_ms / 1e3
        super().__init__(
            "replica",
            lambda slot: replica_command(slot, placement, capacity),
            len(placement),
            room=capacity.in_flight_per_replica,
            startup_timeout_s=settings.startup_timeout_s,
            hang_after_s=hang_after_s,
            refuse_when_none=True,
            prepare=prepare,
            at_least=settings.min_replicas,
            slow=SlowReplicas(len(placement), settings.min_replicas, batch_wait_s),
        )


def replica_command(slot: int, placement: Sequence[Devices], capacity: Capacity) -> Command:
    """How the worker of one replica is started: with its devices visible, and its share of the cores."""
    visible, local = visible_to(placement[slot])
    share = threads(capacity.threads_per_stage)
    return Command(
        f"{_PREFIX}{slot}",
        "multigpu_inference.engine.replica_worker",
        (str(slot), str(len(placement)), ",".join(local), str(capacity.in_flight_per_replica)),
        {"CUDA_VISIBLE_DEVICES": visible, **DEVICE_ORDER, **share, **KEEP_MEMORY},
    )


def replica_id(worker: str) -> str:
    """The number of a replica by its worker's name, as the answer states it."""
    return worker.removeprefix(_PREFIX)
