"""How far each pixel is from the trimap's known ones: six of the matting network's input channels.

Runs in the replica workers, on the stage's device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALE = 320  # pixels; the widths below are fractions of it
_WIDTHS = (0.02, 0.08, 0.16)
WINDOW = 260  # pixels; farther away the widest feature is below 3e-6, so that a distance need not be known
_FAR = 1.0e4  # pixels; stands for "nowhere": its square is exact in float32 and every feature of it is 0
_SCRATCH = 1 << 26  # numbers (256 MB) that the second of the two passes looks at in one step


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
    from scipy.ndimage import distance_transform_edt  # here, as the machines with a GPU can do without it

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
    # Second pass, along each row: the nearest of the columns within the window, a block of them at a time, each
    # a view shifted by one. A kernel for each column would take the host longer to issue than a GPU to run.
    reach = min(WINDOW, width - 1)
    padded = F.pad(column, (reach, reach), value=_FAR**2)
    shifts = torch.arange(-reach, reach + 1, device=known.device, dtype=torch.float32).square()
    block = max(1, min(len(shifts), _SCRATCH // max(1, column.numel())))
    scratch = column.new_empty((block, *column.shape))
    squared = column
    for first in range(0, len(shifts), block):
        shift = shifts[first : first + block].view(-1, *[1] * column.ndim)
        views = padded[..., first : first + width + len(shift) - 1].unfold(-1, width, 1).movedim(-2, 0)
        # Into memory laid out as the picture is: by itself the sum would be laid out as the overlapping views are.
        candidates = torch.add(views, shift, out=scratch[: len(shift)])
        squared = torch.minimum(squared, candidates.amin(dim=0))
    return squared
