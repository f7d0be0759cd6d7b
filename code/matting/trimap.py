"""From stage 1's map to the trimap that stage 2 reads: 0 background, 128 unknown, 255 foreground.

Pure functions on the mask's own device. Run in the replica workers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BACKGROUND = 0
UNKNOWN = 128
FOREGROUND = 255


def make_trimap(mask: Tensor, threshold: int = 231, dilation: int = 30, erosion: int = 5) -> Tensor:
    """Draw a ring of unknown pixels around the object of a saliency mask.

    The object is what is above the threshold. Unknown are: everything around it up to `dilation` pixels,
    its own rim of `erosion` pixels, and every other pixel that is not black. The picture's edge is no rim:
    an object that is cut off there stays known up to it.

    Args:
        mask: saliency, uint8 [H, W].
        threshold: 0 to 255; a pixel of the object is above it.
        dilation: width of the ring outside the object, in pixels, along rows and columns (a square's shape).
        erosion: width of the ring inside the object, in pixels.

    Returns:
        The trimap, uint8 [H, W] of 0, 128 and 255.
    """
    positive = mask > threshold
    near = _dilate(positive, dilation)
    core = ~_dilate(~positive, erosion)
    trimap = torch.where(near | (mask > 0), UNKNOWN, BACKGROUND)
    return torch.where(core, FOREGROUND, trimap).to(torch.uint8)


def trimap_from_logits(logits: Tensor) -> Tensor:
    """Take the likeliest of the three classes of each pixel.

    Args:
        logits: scores of background, unknown and foreground, float [3, H, W] (sigmoids do as well).

    Returns:
        The trimap, uint8 [H, W] of 0, 128 and 255.
    """
    # argmax gives 0, 1, 2; arithmetic instead of a table, which would have to be copied to the device: 0,
    # 128, 256.
    return (logits.argmax(dim=0) * UNKNOWN).clamp(max=FOREGROUND).to(torch.uint8)


def two_channels(trimap: Tensor) -> Tensor:
    """Split a trimap into what the matting network reads.

    Args:
        trimap: uint8 [H, W].

    Returns:
        Float [2, H, W]: 1 where background, 1 where foreground; unknown pixels are 0 in both.
    """
    return torch.stack((trimap == BACKGROUND, trimap == FOREGROUND)).float()


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """Grow a bool mask [H, W] by a square of (2 * radius + 1)²; outside the picture nothing is set."""
    grown = mask.float()[None, None]
    # A square is a row of pixels grown by a column of pixels: 2r instead of r² comparisons a pixel.
    for kernel, padding in (((1, 2 * radius + 1), (0, radius)), ((2 * radius + 1, 1), (radius, 0))):
        grown = F.max_pool2d(grown, kernel, stride=1, padding=padding)
    return grown[0, 0] > 0
