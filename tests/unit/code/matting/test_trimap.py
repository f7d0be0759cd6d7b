from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matting.trimap import make_trimap, trimap_from_logits, two_channels

GREY = {".": 0, "-": 40, "+": 200, "#": 255}
CLASSES = {".": 0, "?": 128, "#": 255}


def drawn(rows: list[str], legend: dict[str, int]) -> Tensor:
    """A 20 x 20 picture, its upper left part drawn and the rest dots."""
    lines = [row.ljust(20, ".") for row in rows] + ["." * 20] * (20 - len(rows))
    return torch.tensor([[legend[letter] for letter in line] for line in lines], dtype=torch.uint8)


def test_object_gets_a_ring_outside_and_a_rim_inside() -> None:
    mask = drawn(["", "", "", "...######", "...######", "...######", "...######", "...######", "...######"], GREY)
    expected = drawn(
        [
            "",
            ".??????????",
            ".??????????",
            ".??????????",
            ".???####???",
            ".???####???",
            ".???####???",
            ".???####???",
            ".??????????",
            ".??????????",
            ".??????????",
        ],
        CLASSES,
    )
    assert torch.equal(make_trimap(mask, threshold=231, dilation=2, erosion=1), expected)


def test_grey_pixels_are_unknown() -> None:
    mask = drawn(["", "..#-", "...+", "", "...........-"], GREY)
    expected = drawn(["", "..#?", "...?", "", "...........?"], CLASSES)
    assert torch.equal(make_trimap(mask, threshold=231, dilation=0, erosion=0), expected)


def test_pixel_at_the_threshold_is_no_object() -> None:
    mask = drawn(["+#"], GREY)
    assert make_trimap(mask, threshold=200, dilation=0, erosion=0)[0, :2].tolist() == [128, 255]
    assert make_trimap(mask, threshold=199, dilation=0, erosion=0)[0, :2].tolist() == [255, 255]


def test_object_cut_off_by_the_pictures_edge_stays_known_up_to_it() -> None:
    mask = drawn(["####", "####", "####", "####"], GREY)
    expected = drawn(["###??", "###??", "###??", "?????", "?????"], CLASSES)
    assert torch.equal(make_trimap(mask, threshold=231, dilation=1, erosion=1), expected)


def test_small_object_is_eroded_to_unknown() -> None:
    mask = drawn(["", "", "", "...##", "...##"], GREY)
    trimap = make_trimap(mask, threshold=231, dilation=1, erosion=1)
    assert trimap.max() == 128
    assert (trimap == 128).sum() == 16


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (255, 255)])
def test_uniform_mask_has_no_unknown(value: int, expected: int) -> None:
    mask = torch.full((20, 20), value, dtype=torch.uint8)
    assert torch.equal(make_trimap(mask), torch.full((20, 20), expected, dtype=torch.uint8))


def test_mask_is_left_as_it_was() -> None:
    mask = drawn(["", ".#+"], GREY)
    before = mask.clone()
    make_trimap(mask)
    assert torch.equal(mask, before)


def test_classes_of_three_channels() -> None:
    logits = torch.tensor([[2.0, 0.1, -3.0], [1.0, 0.5, -2.0], [0.0, 0.2, -1.0]])[:, None, :]
    trimap = trimap_from_logits(logits)
    assert trimap.dtype == torch.uint8
    assert trimap.tolist() == [[0, 128, 255]]


def test_two_channels_leave_unknown_empty() -> None:
    channels = two_channels(torch.tensor([[0, 128, 255]], dtype=torch.uint8))
    assert channels.tolist() == [[[1, 0, 0]], [[0, 0, 1]]]
