"""What each network is told about its mistakes. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.target import UNKNOWN

# An edge that is called known cannot be mended by matting; too much that is called unknown costs little.
_CLASS_WEIGHTS = (1.0, 1.3, 1.0)
_PYRAMID_LEVELS = 4


def trimap_loss(maps: tuple[Tensor, ...], wanted: Tensor) -> Tensor:
    """Cross-entropy of U²-Net's seven maps, the fused one twice, and the fused one's overlap.

    Args:
        maps: logits [N, 3, H, W], the fused map first.
        wanted: classes [N, H, W].
    """
    weight = torch.tensor(_CLASS_WEIGHTS, device=wanted.device)
    entropies = [F.cross_entropy(map_.float(), wanted, weight) for map_ in (maps[0], *maps)]
    likely = maps[0].float().softmax(dim=1)
    target = F.one_hot(wanted, 3).permute(0, 3, 1, 2).float()
    # Overlap counts objects alike, however small; entropy alone counts pixels.
    shared = (likely * target).sum(dim=(2, 3)) + 1
    overlap = shared / ((likely + target - likely * target).sum(dim=(2, 3)) + 1)
    return sum(entropies[1:], start=entropies[0]) / len(entropies) + (1 - overlap).mean()


def matting_loss(estimate: Tensor, sample: dict[str, Tensor], photo: Tensor) -> Tensor:
    """Errors of alpha, of its edges at several scales, of the colours, and of the picture they explain.

    Args:
        estimate: alpha (1), foreground (3) and background (3) in [0, 1], [N, 7, H, W].
        sample: `classes` [N, H, W], `alpha` [N, 1, H, W], `foreground` and `background` [N, 3, H, W].
        photo: RGB in [0, 1], [N, 3, H, W].
    """
    unknown = (sample["classes"] == UNKNOWN)[:, None].float()
    count = unknown.sum() + 1
    wanted = sample["alpha"]
    # What the trimap knows is taken from it when serving: errors there are none.
    alpha = estimate[:, :1] * unknown + wanted * (1 - unknown)
    absolute = (alpha - wanted).abs().sum() / count
    edges = pyramid_difference(alpha, wanted) / count
    fore, back = estimate[:, 1:4], estimate[:, 4:]
    explained = wanted * fore + (1 - wanted) * back
    composed = ((explained - photo).abs() * unknown).sum() / (3 * count)
    seen_fore, seen_back = unknown * (wanted > 0.05), unknown * (wanted < 0.95)
    colours = ((fore - sample["foreground"]).abs() * seen_fore).sum() / (3 * seen_fore.sum() + 1)
    colours = colours + ((back - sample["background"]).abs() * seen_back).sum() / (3 * seen_back.sum() + 1)
    return absolute + edges + 0.5 * composed + 0.5 * colours


def pyramid_difference(first: Tensor, second: Tensor) -> Tensor:
    """Sum of absolute differences of two Laplacian pyramids, coarser levels counting by their area.

    Args:
        first: [N, 1, H, W].
        second: the same shape.
    """
    total = first.new_zeros(())
    difference = first - second  # a pyramid is linear
    for level in range(_PYRAMID_LEVELS):
        coarse = F.avg_pool2d(difference, 2, ceil_mode=True)
        smooth = F.interpolate(coarse, size=difference.shape[-2:], mode="bilinear", align_corners=False)
        total = total + (difference - smooth).abs().sum() * 4**level / 2**level
        difference = coarse
    return total
