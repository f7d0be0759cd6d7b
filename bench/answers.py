"""Whether an answer is right: the serial reference is what the script's functions give, called one after another."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

# A batched convolution adds up in another order: one step of 255 on one pixel in a hundred is no other picture.
_STEP = 1
_SHARE_WITHIN_STEP = 0.99
# Different right answers to one input that are remembered, so that each is looked into once only.
_REMEMBERED = 256


class Answers:
    """Compares answers with the reference's."""

    def __init__(self, expected: Sequence[bytes], *, exact: bool) -> None:
        """Take the reference.

        Args:
            expected: The right answer to each input.
            exact: Whether only the same bytes are right.
        """
        self._expected = tuple(expected)
        self._exact = exact
        self._right: dict[tuple[int, bytes], bool] = {}

    def right(self, number: int, body: bytes | bytearray) -> bool:
        """Whether `body` answers input `number`."""
        expected = self._expected[number]
        if body == expected:
            return True
        if self._exact:
            return False
        key = (number, bytes(body))
        if key not in self._right:
            if len(self._right) >= _REMEMBERED:
                self._right.clear()
            self._right[key] = same_picture(bytes(body), expected)
        return self._right[key]


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two pictures have at least 99 % of their values within 1/255 of each other."""
    try:
        first, second = (Image.open(io.BytesIO(data)) for data in (one, other))
        if (first.size, first.mode) != (second.size, second.mode):
            return False
        steps = np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16))
    except (UnidentifiedImageError, OSError):
        return False
    return bool((steps <= _STEP).mean() >= _SHARE_WITHIN_STEP)
