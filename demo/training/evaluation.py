"""Measures a model folder on composed pictures that no training sees, through the application's own stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matting.pipeline import Matte, MattingStage, Trimapped, TrimapStage, load_pipeline_stages
from matting.trimap import UNKNOWN as UNKNOWN_GREY
from training.composition import compose
from training.metrics import gradient_error, intersection_over_union, mean_squared_error, sum_of_absolute_differences
from training.target import FOREGROUND, UNKNOWN, trimap_classes

SEED = 424242  # no training's: `--seed` refuses it
PICTURES = 64
SIZE = 448  # pixels; neither the trimap network's own size nor a training's
_CLASSES = ("background", "unknown", "foreground")


def evaluate(model_dir: Path, pictures: int = PICTURES, size: int = SIZE, seed: int = SEED) -> dict[str, float]:
    """Compose the held-out set and measure both stages on it, alone and together.

    Args:
        model_dir: folder with the two checkpoints.
        pictures: how many.
        size: their side in pixels.
        seed: of the set.

    Returns:
        Means over the pictures. `trimap_iou_*`: of each class. `matting_*`: stage 2 given the true trimap; `chain_*`: both
        stages. `*_sad` in thousands of pixels, `*_mse` over the unknown pixels for `matting` and over all for
        `chain`, `*_gradient` in thousands. `half_*` is what an alpha of one half in the unknown pixels of the
        true trimap gets: what matting has to beat.
    """
    stages: list[Any] = load_pipeline_stages(model_dir, ["cpu"])
    trimap_stage, matting_stage = stages
    return mean_scores(_score(seed, index, size, trimap_stage, matting_stage) for index in range(pictures))


def mean_scores(scores: Iterable[dict[str, float]]) -> dict[str, float]:
    """The mean of each score, rounded to five digits after the point."""
    rows = list(scores)
    return {name: round(float(np.mean([row[name] for row in rows])), 5) for name in rows[0]}


def _score(seed: int, index: int, size: int, trimap_stage: TrimapStage, matting_stage: MattingStage) -> dict[str, float]:
    composition = compose(seed, index, size)
    photo = torch.from_numpy(composition.photo.copy())
    wanted = torch.from_numpy(composition.alpha)
    classes = torch.from_numpy(trimap_classes(composition.alpha))
    unknown = classes == UNKNOWN
    grey = (classes * UNKNOWN_GREY).clamp(max=255).to(torch.uint8)

    drawn = trimap_stage([photo])[0]
    drawn_classes = (drawn.trimap.int() + 1) // UNKNOWN_GREY  # 0, 128 and 255 become 0, 1 and 2
    scores = {
        f"trimap_iou_{name}": intersection_over_union(drawn_classes, classes, class_) for class_, name in enumerate(_CLASSES)
    }
    half = torch.where(unknown, 0.5, (classes == FOREGROUND).float())
    alphas = {
        "matting": (_alpha(matting_stage([Trimapped(photo, grey)])[0]), unknown),
        "half": (half, unknown),
        "chain": (_alpha(matting_stage([drawn])[0]), torch.ones_like(unknown)),
    }
    for name, (alpha, where) in alphas.items():
        scores[f"{name}_sad"] = sum_of_absolute_differences(alpha, wanted)
        scores[f"{name}_mse"] = mean_squared_error(alpha, wanted, where)
        scores[f"{name}_gradient"] = gradient_error(alpha, wanted)
    return scores


def _alpha(matte: Matte) -> Tensor:
    return matte.alpha.float() / 255
