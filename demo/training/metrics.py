"""How far an answer is from the truth: the usual measures of trimaps and mattes. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMA = 1.4  # pixels; of the gradient error's Gaussian derivative, as in the usual benchmarks
_REACH = 4  # pixels; of its filter, whose squares add up to 1 there


def intersection_over_union(drawn: Tensor, wanted: Tensor, class_: int) -> float:
    """Shared pixels of one class over those that either has; 1 where neither has any.

    Args:
        drawn: classes, any shape.
        wanted: the same shape.
        class_: which.
    """
    first, second = drawn == class_, wanted == class_
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def sum_of_absolute_differences(alpha: Tensor, wanted: Tensor) -> float:
    """SAD of two alphas in [0, 1], in thousands."""
    return float((alpha - wanted).abs().sum()) / 1000


def mean_squared_error(alpha: Tensor, wanted: Tensor, where: Tensor) -> float:
    """MSE of two alphas in [0, 1] over the pixels in a mask; 0 where it is empty."""
    count = int(where.sum())
    return float((alpha - wanted).square()[where].sum()) / count if count else 0.0


def gradient_error(alpha: Tensor, wanted: Tensor) -> float:
    """Squared difference of the slopes of two alphas [H, W], summed, in thousands."""
    return float((_slope(alpha) - _slope(wanted)).square().sum()) / 1000


def _slope(alpha: Tensor) -> Tensor:
    """The length of the gradient under a Gaussian, [H, W]."""
    at = torch.arange(-_REACH, _REACH + 1, dtype=alpha.dtype)
    bell = torch.exp(-at.square() / (2 * _SIGMA**2))
    rise = at * bell
    kernels = torch.stack((bell[:, None] * rise[None, :], rise[:, None] * bell[None, :]))[:, None]
    kernels = kernels / kernels[0].square().sum().sqrt()
    padded = F.pad(alpha[None, None], [_REACH] * 4, mode="replicate")
    along, down = F.conv2d(padded, kernels)[0]
    slope: Tensor = (along.square() + down.square()).sqrt()
    return slope
