"""How far each pixel is from the trimap's known ones: six of the matting network's input channels.

Runs in the replica workers, on the stage's device.
"""

from __future__ import annotations

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

_SCALE = 320  # pixels; the widths below are fractions of it
_WIDTHS = (0.02, 0.08, 0.16)
WINDOW = 260  # pixels; farther away the widest feature is below 3e-6, so that a distance need not be known
_FAR = 1.0e4  # pixels; stands for "nowhere": its square is exact in float32 and every feature of it is 0


def distance_features(trimap: Tensor) -> Tensor:
    """Compute exp(-d² / 2s²) for three widths s, d being the distance to the nearest known pixel.

    Args:
        trimap: two channels, 1 where background and 1 where foreground, else 0, float [N, 2, H, W].

    Returns:
        Three features of the background, then three of the foreground, float [N, 6, H, W]. A channel with
        no pixel set gives zeros. The CPU's distances are exact, another device's up to `WINDOW`
        pixels.
    """
    known = trimap > 0.5
    squared = squared_distance_exact(known) if known.device.type == "cpu" else squared_distance_windowed(known)
    features = [torch.exp(squared / (-2 * (width * _SCALE) ** 2)) for width in _WIDTHS]
    return torch.stack(features, dim=2).flatten(1, 2)


def squared_distance_exact(known: Tensor) -> Tensor:
    """Squared Euclidean distance to the nearest set pixel, on the CPU.

    Several times faster there than the two passes.

    Args:
        known: bool [..., H, W] on the CPU.

    Returns:
        Float [..., H, W]; very large where no pixel is set.
    """
    squared = torch.full(known.shape, _FAR**2)
    for mask, result in zip(known.flatten(0, -3), squared.flatten(0, -3), strict=True):
        if mask.any():
            result.copy_(torch.from_numpy(distance_transform_edt(~mask.numpy())))
            result.square_()
    return squared


def squared_distance_windowed(known: Tensor) -> Tensor:
    """Squared Euclidean distance to the nearest set pixel, in two passes.

    Any device can do them without its host's help.

    Args:
        known: bool [..., H, W].

    Returns:
        Float [..., H, W]; exact up to `WINDOW` pixels, and larger than `WINDOW`² where the distance is
        larger.
    """
    height, width = known.shape[-2:]
    rows = torch.arange(height, device=known.device, dtype=torch.float32).unsqueeze(1)
    # First pass, down each column: the last set row at or above each pixel, and the next at or below.
    above = torch.where(known, rows, -_FAR).cummax(dim=-2).values
    below = torch.where(known, rows, height + _FAR).flip(-2).cummin(dim=-2).values.flip(-2)
    column = torch.minimum(rows - above, below - rows).clamp(max=_FAR).square()
    # Second pass, along each row: the nearest of the columns within the window.
    squared = column.clone()
    for step in range(1, min(WINDOW, width - 1) + 1):
        right, left = squared[..., step:], squared[..., :-step]
        torch.minimum(right, column[..., :-step] + step**2, out=right)
        torch.minimum(left, column[..., step:] + step**2, out=left)
    return squared
