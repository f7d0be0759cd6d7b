from __future__ import annotations

import io
import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from matting.decode import decode, fit
from multigpu_inference.errors import BadRequest, PayloadTooLarge
from unit.code.matting.pictures import (
    cmyk_profile,
    corners,
    file_of,
    grey_profile,
    png_chunk,
    png_header,
    rgb_profile,
    slopes,
)


def pixels(image: Image.Image, format_: str = "PNG", **options: Any) -> Tensor:
    return decode(file_of(image, format_, **options)).pixels


def values(image: Tensor) -> set[int]:
    return set(image.flatten().tolist())


def differ(a: Tensor, b: Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_reads_a_file(format_: str) -> None:
    image, size = decode(bytearray(file_of(corners(), format_)))
    assert (image.shape, image.dtype, size) == ((32, 48, 3), torch.uint8, (32, 48))
    assert (image[2, 2].int() - torch.tensor([255, 0, 0])).abs().max() < 12


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        file_of(corners(), "GIF"),
        file_of(corners(), "BMP"),
        file_of(corners(), "TIFF"),
        b"%PDF-1.7\n" + file_of(corners(), "JPEG"),
        b"GIF89a" + file_of(corners()),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>" + file_of(corners(), "WEBP"),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match="not a JPEG, PNG or WebP file"):
        decode(data)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("length", [16, 24])
def test_a_file_that_begins_as_one_is_told_to_be_broken(format_: str, length: int) -> None:
    with pytest.raises(BadRequest, match="cannot be decoded: its file is broken, cut off or of a rare kind"):
        decode(file_of(corners(), format_)[:length])


def test_only_the_picture_counts_of_a_file_that_is_something_else_too() -> None:
    assert torch.equal(decode(file_of(corners()) + b"PK\x03\x04 an archive").pixels, decode(file_of(corners())).pixels)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_cut_off_file_is_refused(format_: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))
    whole = file_of(noise, format_)
    with pytest.raises(BadRequest) as error:
        decode(whole[: int(len(whole) * share)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_damaged_files_are_pictures_or_refused(format_: str) -> None:
    whole = file_of(slopes(40, 30), format_)
    random, refused = np.random.default_rng(3), 0
    for _ in range(150):
        broken = bytearray(whole)
        for at in random.integers(0, len(whole), 4):
            broken[at] = random.integers(256)
        try:
            decode(broken, max_photo_pixels=10_000)
        except (BadRequest, PayloadTooLarge):  # and nothing else
            refused += 1
    assert refused


def test_what_is_usual_of_broken_files_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    for data in (b"hello", file_of(corners())[:24], file_of(corners(), "JPEG")[:300]):
        with pytest.raises(BadRequest):
            decode(data)
    assert capfd.readouterr().out == ""


def test_an_unusual_error_is_logged_and_still_the_files_fault(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, TypeError("a fault of ours"))
    with pytest.raises(BadRequest, match="cannot be decoded"):
        decode(file_of(corners()))
    event = json.loads(capfd.readouterr().out)
    assert (event["event"], event["error"], event["message"]) == ("photo_not_decoded", "TypeError", "a fault of ours")
    assert "Traceback" in event["trace"]


def test_too_little_memory_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, MemoryError())
    with pytest.raises(MemoryError):
        decode(file_of(corners()))


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(_: Image.Image) -> None:
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_001), (100_000, 100_000)])
def test_size_is_refused_by_the_header_alone(width: int, height: int) -> None:
    with pytest.raises(PayloadTooLarge, match=f"has {width} x {height} pixels; at most 50000000"):
        decode(png_header(width, height))


def test_header_within_the_limit_is_not_refused_for_its_size() -> None:
    with pytest.raises(BadRequest, match="cannot be decoded"):
        decode(png_header(10_000, 5_000))


def test_the_limit_is_the_operators() -> None:
    assert decode(file_of(corners()), max_photo_pixels=48 * 32).size == (32, 48)
    with pytest.raises(PayloadTooLarge, match="has 48 x 32 pixels; at most 1535 are taken"):
        decode(file_of(corners()), max_photo_pixels=48 * 32 - 1)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("behind_the_pixels", [False, True])
def test_text_that_inflates_to_megabytes_is_refused(kind: bytes, behind_the_pixels: bool) -> None:
    packed = zlib.compress(bytes(20_000_000))
    content = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind] + packed
    whole = file_of(corners())
    at = whole.index(b"IEND") - 4 if behind_the_pixels else whole.index(b"IDAT") - 4
    with pytest.raises(BadRequest, match="cannot be decoded"):
        decode(whole[:at] + png_chunk(kind, content) + whole[at:])


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, format_: str) -> None:
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # what undoes a quarter to the right
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = corners() if stored is None else corners().transpose(stored)
    image, size = decode(file_of(picture, format_, exif=exif, quality=95))
    expected = torch.from_numpy(np.array(corners()))
    assert (image.shape, size) == (expected.shape, (32, 48))
    assert differ(image[4:12:7, 4::37], expected[4:12:7, 4::37]) < 16


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_meaningless_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert pixels(corners(), exif=exif).shape == (32, 48, 3)


@pytest.mark.filterwarnings("ignore")  # Pillow's word on it
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40]
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    assert pixels(corners(), "JPEG", exif=exif).shape == (32, 48, 3)


def test_grey() -> None:
    assert values(pixels(Image.new("L", (5, 4), 77))) == {77}


def test_black_and_white() -> None:
    assert values(pixels(Image.new("1", (5, 4), 1))) == {255}


@pytest.mark.parametrize(("deep", "shallow"), [(77 * 256 + 9, 77), (65_535, 255), (255, 0)])
def test_sixteen_bit_grey_is_scaled(deep: int, shallow: int) -> None:
    assert values(pixels(Image.fromarray(np.full((4, 5), deep, np.uint16)))) == {shallow}


def test_sixteen_bit_grey_with_a_transparent_one() -> None:
    whole = file_of(Image.fromarray(np.array([[1000, 50_000]], np.uint16)))
    at = whole.index(b"IDAT") - 4
    image = decode(whole[:at] + png_chunk(b"tRNS", (1000).to_bytes(2, "big")) + whole[at:]).pixels
    assert image[0, :, 0].tolist() == [255, 195]


def test_palette() -> None:
    image = pixels(corners().convert("P", palette=Image.Palette.ADAPTIVE))
    assert torch.equal(image, torch.from_numpy(np.array(corners())))


@pytest.mark.parametrize("options", [{}, {"adobe": True}])
def test_cmyk(options: dict[str, Any]) -> None:
    # Pillow writes CMYK as Adobe does, inverted and with its marker; without the marker browsers take it for that as well.
    whole = file_of(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    at = whole.index(b"\xff\xee")  # the marker, 16 bytes long
    image = decode(whole if options else whole[:at] + whole[at + 16 :]).pixels
    assert differ(image, torch.tensor([255, 0, 0])) < 12


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_transparent_parts_are_white(format_: str) -> None:
    assert values(pixels(Image.new("RGBA", (6, 5), (255, 0, 0, 0)), format_, lossless=True)) == {255}


def test_half_transparent_colours_are_mixed_with_white() -> None:
    assert pixels(Image.new("RGBA", (6, 5), (255, 0, 100, 51)))[0, 0].tolist() == [255, 204, 224]


def test_half_transparent_grey_is_mixed_with_white() -> None:
    assert values(pixels(Image.new("LA", (6, 5), (0, 128)))) == {127}


def test_one_grey_that_is_transparent_is_white() -> None:
    image = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert pixels(image, transparency=7)[0, :, 0].tolist() == [255, 9]


@pytest.mark.parametrize(("transparency", "red"), [(1, (255, 255, 255)), (b"\xff\x80", (227, 127, 127)), (0, (200, 0, 0))])
def test_palette_with_transparent_entries(transparency: int | bytes, red: tuple[int, int, int]) -> None:
    image = Image.new("P", (6, 5), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    assert pixels(image, transparency=transparency)[0, 0].tolist() == list(red)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture(format_: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    image = pixels(frames[0], format_, save_all=True, append_images=frames[1:], lossless=True)
    assert (image.shape, image[5, 5].tolist()) == ((10, 20, 3), [255, 0, 0])


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_colour_profile_counts(format_: str) -> None:
    image = pixels(Image.new("RGB", (16, 16), (0, 200, 0)), format_, icc_profile=rgb_profile(swap=True), quality=95)
    assert image[8, 8, 2] > 190
    assert image[8, 8, 1] < 60


def test_the_colour_profile_counts_in_grey_and_behind_transparency() -> None:
    profile = grey_profile()
    plain = pixels(Image.new("L", (4, 4), 55), icc_profile=profile)
    assert values(plain) == values(pixels(Image.fromarray(np.full((4, 4), 55 * 256, np.uint16)), icc_profile=profile)) == {128}
    assert values(pixels(Image.new("LA", (4, 4), (55, 255)), icc_profile=profile)) == {128}
    assert values(pixels(Image.new("LA", (4, 4), (55, 0)), icc_profile=profile)) == {255}


def test_the_colour_profile_counts_in_a_palette() -> None:
    image = Image.new("P", (6, 5), 1)
    image.putpalette([0, 0, 0, 0, 200, 0])
    assert pixels(image, icc_profile=rgb_profile(swap=True))[0, 0, 2] > 190


def test_the_colour_profile_counts_in_cmyk() -> None:
    reddish = cmyk_profile((200, 180, 128))
    image = pixels(Image.new("CMYK", (16, 16), (0, 0, 0, 128)), "JPEG", quality=95, icc_profile=reddish)
    assert differ(image, torch.tensor([130, 75, 93])) < 4


@pytest.mark.parametrize(
    "profile", [b"x", grey_profile(), cmyk_profile((1, 2, 3)), rgb_profile(swap=True)[:200], bytes(5_000_000)]
)
def test_a_colour_profile_that_cannot_be_used_is_ignored(profile: bytes) -> None:
    assert torch.equal(pixels(corners(), "WEBP", lossless=True, icc_profile=profile), pixels(corners()))


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((30, 40), None, (30, 40)),
        ((30, 40), 40, (30, 40)),
        ((30, 40), 20, (15, 20)),
        ((40, 30), 39, (39, 29)),
        ((1, 1000), 10, (1, 10)),
        ((3, 2), 1, (1, 1)),
    ],
)
def test_fits_into_a_side(size: tuple[int, int], max_side: int | None, expected: tuple[int, int]) -> None:
    assert fit(size, max_side) == expected


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("max_side", [20, 60, 100, 320, 1000])
def test_max_side_reduces_and_never_enlarges(format_: str, max_side: int) -> None:
    image, size = decode(file_of(slopes(320, 240), format_, quality=95), max_side=max_side)
    side = min(max_side, 320)
    assert tuple(image.shape[:2]) == size == (side * 3 // 4, side)
    assert differ(image, torch.from_numpy(np.array(slopes(side, side * 3 // 4)))) < 14


def test_max_side_is_of_the_upright_photo() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image, size = decode(file_of(slopes(320, 240), "JPEG", exif=exif), max_side=40)
    assert tuple(image.shape[:2]) == size == (40, 30)


def test_a_jpeg_is_decoded_no_finer_than_is_of_use() -> None:
    data = file_of(slopes(640, 480), "JPEG", quality=95)
    image, size = decode(data, enough_pixels=320 * 240 // 2)
    assert (tuple(image.shape[:2]), size) == ((240, 320), (480, 640))
    assert differ(image, torch.from_numpy(np.array(slopes(320, 240)))) < 8


@pytest.mark.parametrize(
    ("format_", "enough_pixels"), [("JPEG", 0), ("JPEG", 640 * 480), ("JPEG", 640 * 480 // 2), ("PNG", 100)]
)
def test_a_photo_is_decoded_whole_where_nothing_is_gained(format_: str, enough_pixels: int) -> None:
    image, size = decode(file_of(slopes(640, 480), format_), enough_pixels=enough_pixels)
    assert tuple(image.shape[:2]) == size == (480, 640)


def test_a_coarse_photos_size_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    image, size = decode(file_of(slopes(640, 480), "JPEG", exif=exif), enough_pixels=10_000)
    assert (tuple(image.shape[:2]), size) == ((160, 120), (640, 480))


def test_a_coarse_photo_is_no_larger_than_its_side() -> None:
    image, size = decode(file_of(slopes(640, 480), "JPEG"), max_side=400, enough_pixels=20_000)
    assert (tuple(image.shape[:2]), size) == ((120, 160), (300, 400))


def test_a_photo_of_several_in_one_file_is_the_first() -> None:
    """As phones and cameras write them, with a preview behind the photo."""
    buffer = io.BytesIO()
    corners().save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (12, 8))], quality=95)
    assert differ(decode(buffer.getvalue()).pixels, pixels(corners(), "JPEG", quality=95)) < 3
