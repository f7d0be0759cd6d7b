"""All replicas of a model that this process holds, called like one model: each call goes to the next replica in turn.

In the container a replica worker holds one: `model_fn` is told its devices. Called without devices, in a notebook, a
test or a stock SageMaker container, there is one replica for each visible GPU, the second model on the next device,
placed by the same settings and the same `plan_placement` as in the container.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from multigpu_inference.config import Settings
from multigpu_inference.engine.capacity import available_cores, plan_capacity
from multigpu_inference.engine.devices import cpu_devices
from multigpu_inference.engine.pipeline import Pipeline
from multigpu_inference.engine.placement import Devices, plan_placement
from multigpu_inference.engine.scheduler import RoundRobin
from multigpu_inference.engine.stage import Stage
from multigpu_inference.errors import DeviceError, ModelError

_BATCH_ON_GPU = 8


class ReplicaSet:
    """One or more pipelines that take turns."""

    def __init__(self, replicas: Sequence[Sequence[Stage]]) -> None:
        """Make a pipeline of each replica's stages, with as many streams and such batches as the settings say."""
        settings = Settings.from_env(os.environ).engine
        self.replicas = tuple(
            Pipeline(
                stages,
                max_batch_size=settings.max_batch_size or _default_batch_size(stages),
                max_batch_delay_ms=settings.max_batch_delay_ms,
                streams=settings.streams_per_stage,
            )
            for stages in replicas
        )
        self._turns = RoundRobin(len(self.replicas))
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, load_stages: Callable[[Devices], Sequence[Stage]], stages: int, devices: Sequence[str] | None = None
    ) -> ReplicaSet:
        """Load the replicas of this process.

        Args:
            load_stages: Loads one replica's stages onto its devices, one per stage.
            stages: How many devices a replica has.
            devices: This replica's devices, as `context.devices` has them; None: all visible devices, as many replicas
                and placed as `MULTIGPU_NUM_REPLICAS` and `MULTIGPU_PLACEMENT` say.

        Raises:
            ModelError: where `load_stages` gives another number of stages.
            DeviceError: where GPUs are asked for and there are none.
        """
        placement = [tuple(devices)] if devices else visible_placement(stages)
        replicas = [tuple(load_stages(replica)) for replica in placement]
        if any(len(replica) != stages for replica in replicas):
            raise ModelError(f"{len(replicas[0])} stages were loaded where there are devices for {stages}")
        return cls(replicas)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a replica; all replicas have the same."""
        return self.replicas[0].stages

    def __call__(self, item: Any) -> Any:
        """Take an item through the next replica in turn; its result. Any number of threads may call."""
        with self._lock:
            turn = self._turns.take()
        assert turn is not None  # every replica is always free to be called
        return self.replicas[turn](item)


def _default_batch_size(stages: Sequence[Stage]) -> int:
    """On the CPU a batch takes as long as its items one by one, so it would only delay the first of them."""
    return _BATCH_ON_GPU if any(str(stage.device).startswith("cuda") for stage in stages) else 1


def visible_placement(stages: int) -> tuple[Devices, ...]:
    """The devices of each replica that this process would hold, from the settings and the GPUs that it sees."""
    import torch

    settings = Settings.from_env(os.environ).engine
    gpus = 0 if settings.devices == "cpu" else torch.cuda.device_count()
    if settings.devices == "cuda" and not gpus:
        raise DeviceError("MULTIGPU_DEVICES is cuda, but torch sees no GPU")
    replicas = plan_capacity(settings, gpus, available_cores()).num_replicas
    devices = tuple(f"cuda:{i}" for i in range(gpus)) or cpu_devices(replicas, stages)
    return plan_placement(devices, stages, replicas, settings.placement)
