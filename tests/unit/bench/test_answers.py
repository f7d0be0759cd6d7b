from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bench.answers import Answers


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


EXPECTED = np.arange(100).reshape(10, 10)


def changed(pixels: int, by: int) -> bytes:
    other = EXPECTED.copy()
    other.flat[:pixels] += by
    return png(other)


@pytest.mark.parametrize(
    ("pixels", "by", "right"),
    [(0, 0, True), (100, 1, True), (1, 50, True), (2, 2, False), (100, 2, False)],
)
def test_a_picture_may_differ_by_one_step_or_in_one_pixel_of_a_hundred(pixels: int, by: int, right: bool) -> None:
    answers = Answers([png(EXPECTED)], exact=False)
    body = changed(pixels, by)
    assert answers.right(0, body) is right
    assert answers.right(0, body) is right  # remembered


def test_an_exact_answer_may_not_differ_at_all() -> None:
    answers = Answers([png(EXPECTED), b"other"], exact=True)
    assert answers.right(0, png(EXPECTED))
    assert answers.right(1, bytearray(b"other"))
    assert not answers.right(0, changed(1, 1))
    assert not answers.right(0, b"other")


@pytest.mark.parametrize("body", [b"", b'{"error": 1}', png(np.zeros((5, 10))), png(np.zeros((10, 10, 3)))])
def test_something_that_is_not_such_a_picture_is_wrong(body: bytes) -> None:
    assert not Answers([png(EXPECTED)], exact=False).right(0, body)
