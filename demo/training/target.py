"""From a composed picture to what each network is trained on: its input and the answer wanted.

Pure functions. The trimaps that matting is trained on are drawn more carelessly than stage 1 will, so that
matting bears stage 1's mistakes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from matting.imagenet import normalise
from training.composition import Composition
from training.raster import Array, Random, between, chance, clouds

BACKGROUND, UNKNOWN, FOREGROUND = 0, 1, 2  # the order of U²-Net's three channels
_MARGIN = 4.5 / 320  # of the picture's side: how far beyond the mixed pixels "unknown" reaches
_OPAQUE, _EMPTY = 0.96, 0.04


def classes(alpha: Array, margin: float) -> NDArray[np.int64]:
    """Divide an alpha into background, unknown and foreground.

    Args:
        alpha: [H, W] in [0, 1].
        margin: how many pixels around every mixed pixel and every edge are unknown, too.

    Returns:
        0, 1 or 2 for each pixel, [H, W].
    """
    return _classes(alpha, margin, margin)


def trimap_classes(alpha: Array) -> NDArray[np.int64]:
    """The classes that stage 1 is trained to answer, for a picture as it sees it."""
    return classes(alpha, _MARGIN * len(alpha))


def matting_classes(alpha: Array, random: Random) -> NDArray[np.int64]:
    """A trimap such as stage 1 might have drawn: a band of any width, and doubtful patches."""
    size = len(alpha)
    widest = 9 if chance(random, 0.75) else 22
    drawn = _classes(alpha, between(random, 2, widest), between(random, 2, widest))
    if chance(random, 0.2):
        drawn = np.where(clouds(size, between(random, 2, 8), random) > between(random, 0.6, 0.9), UNKNOWN, drawn)
    return drawn


def trimap_input(photos: Tensor) -> Tensor:
    """Photos, uint8 [N, H, W, 3], as U²-Net's input: [N, 3, H, W], as the application feeds it."""
    rgb = rgb_of(photos)
    return normalise(rgb / rgb.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6))


def rgb_of(photos: Tensor) -> Tensor:
    """Photos, uint8 [N, H, W, 3], as float [N, 3, H, W] in [0, 1]."""
    return photos.permute(0, 3, 1, 2).float() / 255


def known_of(drawn: Tensor) -> Tensor:
    """Classes [N, H, W] as matting's two channels: background and foreground, float [N, 2, H, W]."""
    return F.one_hot(drawn, 3).permute(0, 3, 1, 2)[:, [BACKGROUND, FOREGROUND]].float()


def trimap_sample(composition: Composition) -> dict[str, Tensor]:
    """What one picture gives to stage 1's training."""
    return {
        "photo": torch.from_numpy(composition.photo.copy()),
        "classes": torch.from_numpy(trimap_classes(composition.alpha)),
    }


def matting_sample(composition: Composition, random: Random, crop: int) -> dict[str, Tensor]:
    """What one picture gives to stage 2's training: a part of it with unknown pixels in its middle."""
    drawn = matting_classes(composition.alpha, random)
    unknown = np.flatnonzero(drawn == UNKNOWN)
    place = int(random.choice(unknown)) if len(unknown) else 0
    limit = drawn.shape[0] - crop
    y, x = (int(np.clip(at - random.integers(0, crop), 0, limit)) for at in divmod(place, drawn.shape[1]))
    part = (slice(y, y + crop), slice(x, x + crop))

    def channels_first(colours: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(colours[part].transpose(2, 0, 1)))

    return {
        "photo": torch.from_numpy(composition.photo[part].copy()),
        "classes": torch.from_numpy(np.ascontiguousarray(drawn[part])),
        "alpha": torch.from_numpy(np.ascontiguousarray(composition.alpha[part][None])),
        "foreground": channels_first(composition.foreground),
        "background": channels_first(composition.background),
    }


def _classes(alpha: Array, outside: float, inside: float) -> NDArray[np.int64]:
    background = distance_transform_edt(alpha <= _EMPTY) > outside
    foreground = distance_transform_edt(alpha >= _OPAQUE) > inside
    drawn = np.full(alpha.shape, UNKNOWN, np.int64)
    drawn[background] = BACKGROUND
    drawn[foreground] = FOREGROUND
    return drawn
