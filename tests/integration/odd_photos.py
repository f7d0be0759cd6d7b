"""Photos of odd formats, broken ones and what is none, each with what is right for it. Seeded: they are the same each time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from integration.odd.any_format import damaged, profiles, shapes
from integration.odd.exif import exifs
from integration.odd.jpeg import jpegs
from integration.odd.no_picture import no_pictures, polyglots
from integration.odd.photo import OddPhoto
from integration.odd.png import png_chunks, png_kinds
from integration.odd.webp import webps


def odd_photos() -> list[OddPhoto]:
    """All of them; each has another name."""
    kinds = (png_kinds, png_chunks, jpegs, webps, exifs, profiles, shapes, damaged, polyglots, no_pictures)
    return [photo for kind in kinds for photo in kind()]


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """Good files with something wrong: bytes changed, cut out, doubled, exchanged, cut off, or taken from another file."""
    random = np.random.default_rng(seed)
    good = [photo.make() for photo in odd_photos() if photo.size is not None and not photo.refusal]
    good = [data for data in good if 100 < len(data) < 5000]
    for _ in range(count):
        data = bytearray(good[random.integers(len(good))])
        for _ in range(random.integers(1, 5)):
            _mutate(data, random, good)
        yield bytes(data)


def _mutate(data: bytearray, random: np.random.Generator, good: list[bytes]) -> None:
    start = int(random.integers(len(data) + 1))
    end = min(len(data), start + int(random.integers(1, 40)))
    match random.integers(7):
        case 0 | 1:
            data[start : start + 1] = random.bytes(1)
        case 2:
            data[start:end] = (b"\0", b"\xff", b"\x7f")[random.integers(3)] * (end - start)
        case 3:
            del data[start:end]
        case 4:
            data[start:start] = data[start:end]
        case 5:
            other = good[random.integers(len(good))]
            data[start:end] = other[start:end]
        case 6:
            del data[max(20, start) :]
