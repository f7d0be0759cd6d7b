"""The simulated accelerators of the workload `sim`: how long everything takes, and what is possible at best."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Workers beyond what the sleeping takes at the ideal rate, so that they are never what is waited for.
_SPARE_WORKERS = 1.3


@dataclass(frozen=True, slots=True)
class Simulation:
    """Times in milliseconds; a stage holds its device for `a + b·n` ms for a batch of n.

    Attributes:
        preprocess_ms: `input_fn`, which holds nothing.
        stage_1_ms: The first stage's `a`.
        stage_1_item_ms: The first stage's `b`.
        stage_2_ms: The second stage's `a`.
        stage_2_item_ms: The second stage's `b`.
        postprocess_ms: `output_fn`, which holds nothing.
        max_batch_size: The largest batch of a stage.
        stages: 2, or 1: then the second stage is not there, and its times are 0.
    """

    preprocess_ms: float = 9.0
    stage_1_ms: float = 8.0
    stage_1_item_ms: float = 0.0
    stage_2_ms: float = 12.0
    stage_2_item_ms: float = 0.0
    postprocess_ms: float = 11.0
    max_batch_size: int = 1
    stages: int = 2

    def ideal_per_second(self, devices: int) -> float:
        """Requests per second where every device is held all the time, in the best batches.

        Each device runs both stages, of one replica and of its neighbour, so a request takes both stages' time of one
        device in all.
        """
        return devices * max(1e3 * n / self._device_ms(n) for n in range(1, self.max_batch_size + 1))

    def lone_ms(self) -> float:
        """How long a request takes that is alone, where nothing but the sleeping costs time."""
        return self.preprocess_ms + self._device_ms(1) + self.postprocess_ms

    def pool_workers(self, devices: int) -> int:
        """Pool workers that are enough for the ideal rate."""
        busy = self.ideal_per_second(devices) * (self.preprocess_ms + self.postprocess_ms) / 1e3
        return max(2, math.ceil(busy * _SPARE_WORKERS))

    def environment(self, devices: int, folder: str) -> dict[str, str]:
        """What `workloads/sim.py` reads, with the folder of the devices' locks."""
        numbers = {
            "DEVICES": devices,
            "STAGES": self.stages,
            "MAX_BATCH_SIZE": self.max_batch_size,
            "PREPROCESS_MS": self.preprocess_ms,
            "STAGE_1_MS": self.stage_1_ms,
            "STAGE_1_ITEM_MS": self.stage_1_item_ms,
            "STAGE_2_MS": self.stage_2_ms,
            "STAGE_2_ITEM_MS": self.stage_2_item_ms,
            "POSTPROCESS_MS": self.postprocess_ms,
        }
        return {"SIM_DEVICE_DIR": folder, **{f"SIM_{name}": f"{value:g}" for name, value in numbers.items()}}

    def _device_ms(self, batch: int) -> float:
        return self.stage_1_ms + self.stage_1_item_ms * batch + self.stage_2_ms + self.stage_2_item_ms * batch


UNBATCHED = Simulation()
STUDY = Simulation(preprocess_ms=5.0, stage_1_ms=45.0, stage_2_ms=0.0, postprocess_ms=0.0, stages=1)
BATCHED = Simulation(stage_1_ms=6.0, stage_1_item_ms=2.0, stage_2_ms=9.0, stage_2_item_ms=3.0, max_batch_size=8)
