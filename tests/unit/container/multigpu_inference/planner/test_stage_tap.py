from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from multigpu_inference.planner.stage_tap import StageTap, run_stage


class Add:
    device = "cpu:0"
    max_batch_size = 4

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.calls += 1
        return [item + self.number for item in items]


class Model:
    label = "a model"

    def __init__(self) -> None:
        self.stages = (Add(1), Add(10))


def test_each_stage_is_given_what_the_one_before_made() -> None:
    tap = StageTap(Model())
    assert [tap(5), tap(7)] == [16, 18]
    assert tap.items == [[5, 7], [6, 8]]


def test_a_replay_gives_the_same_and_runs_nothing() -> None:
    model = Model()
    tap = StageTap(model)
    tap(5), tap(7)
    tap.replay()
    assert [tap(5), tap(7)] == [16, 18]
    assert [stage.calls for stage in model.stages] == [2, 2]
    assert tap(5) == 18  # beyond what there was, the last


def test_what_else_a_script_asks_its_model_is_answered_by_the_model() -> None:
    assert StageTap(Model()).label == "a model"


def test_a_stage_runs_without_gradients() -> None:
    def stage(items: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [item * 2 for item in items]

    (result,) = run_stage(stage, [torch.ones(2, requires_grad=True)])  # type: ignore[arg-type]
    assert not result.requires_grad
