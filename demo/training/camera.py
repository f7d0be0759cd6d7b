"""What a camera does to a scene: exposure and colour before, noise, compression and rounding after composing.

Pure functions of a seeded generator.
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.raster import Array, Random, between, chance, grid, unit


class Exposure:
    """One picture's colour response, applied alike to what is in front and to what is behind."""

    def __init__(self, random: Random) -> None:
        """Draw white balance, gamma, contrast and whether the film is grey."""
        self._balance = np.clip(random.normal(1, 0.07, 3), 0.75, 1.25).astype(np.float32)
        self._gamma = math.exp(random.normal(0, 0.18))
        self._black, self._white = between(random, 0, 0.12), between(random, 0.85, 1.12)
        self._grey = chance(random, 0.05)

    def develop(self, colours: Array) -> Array:
        """Apply it to colours [H, W, 3] in [0, 1]."""
        seen = np.clip(colours * self._balance, 0, 1) ** self._gamma
        seen = self._black + (self._white - self._black) * seen
        if self._grey:
            seen = np.broadcast_to(seen.mean(axis=2, keepdims=True), seen.shape)
        return unit(seen)


def photograph(image: Array, random: Random) -> NDArray[np.uint8]:
    """Add a lens's dark corners, a sensor's noise and a file's compression.

    Args:
        image: the composed picture, [H, W, 3] in [0, 1].
        random: the generator.

    Returns:
        The photo, uint8 [H, W, 3].
    """
    size = len(image)
    if chance(random, 0.25):
        y, x = grid(size)
        image = image * (1 - between(random, 0.1, 0.8) * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None]
    if chance(random, 0.7):
        strength = between(random, 0.002, 0.03)
        coloured = (
            random.normal(0, strength, image.shape) if chance(random, 0.5) else random.normal(0, strength, (size, size, 1))
        )
        image = image + coloured * (0.5 + image)  # brighter pixels are noisier
    pixels: NDArray[np.uint8] = np.rint(unit(image) * 255).astype(np.uint8)
    if chance(random, 0.6):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=int(random.integers(45, 96)))
        pixels = np.asarray(Image.open(buffer).convert("RGB"))
    return pixels
