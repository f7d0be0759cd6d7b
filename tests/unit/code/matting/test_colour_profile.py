from __future__ import annotations

import pytest
from PIL import Image, ImageCms

from matting import colour_profile
from matting.colour_profile import to_srgb
from unit.code.matting.pictures import grey_profile, rgb_profile


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    colour_profile._kept.clear()


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_a_profile_that_is_srgb_costs_nothing() -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    assert to_srgb(image, srgb()) == image
    assert list(colour_profile._kept.values()) == [None]


def test_without_a_profile_nothing_is_asked() -> None:
    assert to_srgb(Image.new("L", (4, 4), 9), None).getpixel((0, 0)) == (9, 9, 9)
    assert not colour_profile._kept


def test_a_gamma_is_undone() -> None:
    # Linear light: sRGB shows 55 of 255 as 128.
    assert to_srgb(Image.new("RGB", (4, 4), (55, 0, 255)), rgb_profile(1.0)).getpixel((0, 0)) == (128, 0, 255)
    assert to_srgb(Image.new("L", (4, 4), 55), grey_profile(1.0)).getpixel((0, 0)) == (128, 128, 128)


def test_a_transform_is_made_once() -> None:
    image = Image.new("RGB", (4, 4))
    to_srgb(image, rgb_profile())
    (made,) = colour_profile._kept.values()
    to_srgb(image, rgb_profile())
    assert list(colour_profile._kept.values()) == [made]


def test_those_used_last_are_kept() -> None:
    image = Image.new("RGB", (4, 4))
    to_srgb(image, rgb_profile(1.0))
    (made,) = colour_profile._kept.values()
    for i in range(colour_profile._KEPT):
        to_srgb(image, rgb_profile(1.1 + i / 50))
        to_srgb(image, rgb_profile(1.0))
    assert len(colour_profile._kept) == colour_profile._KEPT
    assert list(colour_profile._kept.values())[-1] is made


@pytest.mark.parametrize("profile", [b"", b"nonsense", grey_profile(), rgb_profile(1.0) + bytes(4_000_000)])
def test_what_cannot_be_used_is_ignored(profile: bytes) -> None:
    assert to_srgb(Image.new("RGB", (4, 4), (1, 2, 3)), profile).getpixel((0, 0)) == (1, 2, 3)
