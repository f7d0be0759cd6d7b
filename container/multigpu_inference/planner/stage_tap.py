"""Stands for a model while `predict_fn` runs: takes items through the stages one by one, and keeps what each was given.

What a stage gets is known only once the script has prepared it, so the script is run, with this in its model's place. A second
run with what the first one gave shows what `predict_fn` takes beside the stages. Runs in a profiler's process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from multigpu_inference.engine import structure
from multigpu_inference.engine.stage import Stage, room


class StageTap:
    """A model that can be called as the real one, and otherwise hands on to it.

    Attributes:
        items: For each stage, the items that it was given.
    """

    def __init__(self, model: Any) -> None:
        """Stand for a model with `stages`."""
        self._model = model
        self._replay: list[Any] | None = None
        self.items: list[list[Any]] = [[] for _ in model.stages]
        self.results: list[Any] = []

    def __call__(self, item: Any) -> Any:
        """Take an item through the stages; in a replay, give what they gave before."""
        if self._replay is not None:
            return self._replay.pop(0) if self._replay else self.results[-1]
        for stage, given in zip(self._model.stages, self.items, strict=True):
            item = on_device(item, stage)
            given.append(item)
            with room(stage):
                item = run_stage(stage, [item])[0]
        self.results.append(item)
        return item

    def replay(self) -> None:
        """From now on, give what the stages gave, in the same order, and run nothing."""
        self._replay = list(self.results)

    def __getattr__(self, name: str) -> Any:
        """What a script may ask its model beside calling it."""
        return getattr(self._model, name)


def run_stage(stage: Stage, items: Sequence[Any]) -> Sequence[Any]:
    """Call a stage as a pipeline does: without gradients."""
    torch = sys.modules.get("torch")
    with torch.no_grad() if torch is not None else nullcontext():
        results: Sequence[Any] = list(stage(items))
    return results


def on_device(item: Any, stage: Stage) -> Any:
    """An item with its tensors on a GPU stage's device; a stage on the CPU brings what it needs itself."""
    device = str(stage.device)
    if not device.startswith("cuda"):
        return item
    return structure.place_tensors(item, structure.tensor_paths(item), lambda tensor: tensor.to(device))
