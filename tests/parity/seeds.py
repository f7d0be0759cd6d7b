"""Weights and pictures that are the same wherever they are made: by NumPy's raw bits alone, without its distributions.

Torch's generator and NumPy's distributions may change from version to version, the bits of a PCG64 may not. What is
computed from them is exact in float32 or rounded once or twice, so that a machine's own way of adding up has no part in it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SEED = 20200318

Floats = NDArray[np.float32]

# A residual block adds two paths, eleven blocks follow one another, and a seeded batch normalisation does not know the scale
# of what it gets: half of the energy for each path keeps the last block's as large as the first one's.
_PATHS = ("rebnconvin.bn_s1.weight", "rebnconv1d.bn_s1.weight")
_PATH_SCALE = math.sqrt(0.5)
# FBA's blocks add to a path that goes straight through: were all of them as strong as it, the sixteen together would amplify
# float32's rounding some thousandfold, and a small fault could not be told from it.
_BRANCHES = "bn3.weight"
_BRANCH_SCALE = 0.3
# The outputs leave as sigmoids or clamped, which would hide what is far from the middle.
_MAPS = ("side", "outconv", "decoder.conv_up4.4")
_MAP_SCALE = 0.5
# FBA's alpha is clamped to [0, 1]: most of it is to be inside, and some of it beyond either end.
_ALPHA_BIAS = "decoder.conv_up4.4.bias"


def uniform(name: str, shape: Sequence[int], seed: int = SEED) -> Floats:
    """Draw numbers from [-1, 1), multiples of 2^-23; a name has its own sequence, whatever else is drawn."""
    count = math.prod(shape)
    raw = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw((count + 1) // 2)
    words = np.asarray(raw).astype("<u8").view("<u4")[:count] >> 8
    return (words.astype(np.float32) * np.float32(2**-23) - np.float32(1)).reshape(tuple(shape))


def seeded_weights(shapes: Mapping[str, Sequence[int]], seed: int = SEED) -> dict[str, NDArray[np.generic]]:
    """Make a state dict under which signals neither die nor explode.

    Args:
        shapes: each key's shape, as in U²-Net's or FBA's state dict.
        seed: another one gives other weights.

    Returns:
        An array for each key: float32, and int64 for `num_batches_tracked`.
    """
    return {key: _seeded(key, shape, seed) for key, shape in shapes.items()}


def picture(height: int, width: int) -> Floats:
    """Draw noise on squares of 8 x 8 pixels: float32 [1, 3, H, W] in [0, 1]."""
    squares = uniform("squares", (1, 3, math.ceil(height / 8), math.ceil(width / 8)))
    coarse = squares.repeat(8, axis=2).repeat(8, axis=3)[..., :height, :width]
    noise = uniform("noise", (1, 3, height, width))
    drawn: Floats = (np.float32(0.5) + np.float32(0.375) * coarse + np.float32(0.125) * noise).astype(np.float32)
    return drawn


def trimap(height: int, width: int, *, foreground: bool = True) -> NDArray[np.uint8]:
    """Draw a ring of unknown pixels around a disc beside the middle: uint8 [H, W] of 0, 128 and 255.

    Without `foreground`, the disc is unknown too.
    """
    rows, columns = np.ogrid[:height, :width]
    squared = (rows - height * 7 // 16) ** 2 + (columns - width * 9 // 16) ** 2
    side = min(height, width)
    drawn = np.full((height, width), 128, np.uint8)
    drawn[5 * squared > side**2] = 0
    if foreground:
        drawn[16 * squared < side**2] = 255
    return drawn


def _seeded(key: str, shape: Sequence[int], seed: int) -> NDArray[np.generic]:
    if key.endswith("num_batches_tracked"):
        return np.array(1, np.int64)
    values: NDArray[np.floating] = uniform(key, shape, seed)
    if values.ndim == 4:
        values = values * np.float32(math.sqrt(6 / math.prod(shape[1:])))  # He et al.: variance 2 / inputs, for ReLU
        if key.startswith(_MAPS):
            # Its inputs are all positive: centred, so that the map varies about 0 rather than about their mean.
            values = (values - values.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)) * _MAP_SCALE
    elif key.endswith("running_var"):
        values = 1 + values / 2
    elif key.endswith("weight"):
        values = (1 + values / 5) * (_PATH_SCALE if key.endswith(_PATHS) else _BRANCH_SCALE if key.endswith(_BRANCHES) else 1)
    else:
        values = values / 5
        if key == _ALPHA_BIAS:
            values[0] = 0.5
    return values.astype(np.float32)
