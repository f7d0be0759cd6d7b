"""The bytes that are sent: seeded, so that every run sends the same."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def photos(count: int, size: tuple[int, int], grain: int, quality: int) -> list[bytes]:
    """JPEGs of coloured noise.

    Args:
        count: How many different ones.
        size: Width and height, pixels.
        grain: Pixels of a speck; larger ones compress better.
        quality: Of the JPEG, 1 to 95.
    """
    random = np.random.default_rng(7)
    return [_photo(random, size, grain, quality) for _ in range(count)]


def _photo(random: np.random.Generator, size: tuple[int, int], grain: int, quality: int) -> bytes:
    width, height = size
    specks = random.integers(0, 256, (height // grain, width // grain, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(specks).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def noise(count: int, length: int) -> list[bytes]:
    """Bodies that mean nothing, of `length` bytes."""
    random = np.random.default_rng(7)
    return [random.bytes(length) for _ in range(count)]
