from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from matting.images import decode, encode, read_request
from multigpu_inference.errors import BadRequest, NotAcceptable, PayloadTooLarge, UnsupportedMediaType


class Prediction(NamedTuple):
    alpha: Tensor
    foreground: Tensor


def file_of(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def values(image: Tensor) -> set[int]:
    return set(image.flatten().tolist())


def corners() -> Image.Image:
    """A 48 x 32 picture: red at the upper left, green at the upper right, blue below."""
    image = Image.new("RGB", (48, 32), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 24, 16))
    image.paste((0, 255, 0), (24, 0, 48, 16))
    return image


def png_header(width: int, height: int) -> bytes:
    """A PNG file that announces a size and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content_type", "format_"),
    [
        ("image/jpeg", "JPEG"),
        ("image/png", "PNG"),
        ("image/webp", "WEBP"),
        ("application/x-image", "JPEG"),
        ("application/octet-stream", "PNG"),
        ("IMAGE/JPEG; q=1", "JPEG"),
        ("image/jpeg", "PNG"),
    ],
)
def test_reads_a_pictures_bytes(content_type: str, format_: str) -> None:
    image = read_request(file_of(corners(), format_), content_type)
    assert image.shape == (32, 48, 3)
    assert image.dtype == torch.uint8
    assert (image[2, 2].int() - torch.tensor([255, 0, 0])).abs().max() < 12


def test_reads_base64_in_json() -> None:
    body = json.dumps({"image": base64.b64encode(file_of(corners())).decode(), "save_name": "x"}).encode()
    assert torch.equal(read_request(body, "application/json"), torch.from_numpy(np.array(corners())))


def test_reads_a_url_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    site = {"http://example.com/a.png": file_of(corners())}
    monkeypatch.setattr("matting.images.download", site.__getitem__)
    image = read_request(b'{"url": "http://example.com/a.png"}', "application/json; charset=utf-8")
    assert image.shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "either 'image'"),
        (b"{}", "either 'image'"),
        (b'{"image": "", "url": ""}', "either 'image'"),
        (b'{"image": 3}', "'image' must be a string"),
        (b'{"url": null}', "'url' must be a string"),
        (b'{"image": "@@@@"}', "not valid base64"),
        ('{"image": "é"}'.encode(), "not valid base64"),
        (b'{"image": "AAAA"}', "not a JPEG, PNG or WebP"),
    ],
)
def test_bad_json(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read_request(body, "application/json")


@pytest.mark.parametrize("content_type", ["", "text/csv", "image/gif", "image"])
def test_unsupported_content_type(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"image/jpeg.*application/json"):
        read_request(file_of(corners()), content_type)


@pytest.mark.parametrize("body", [b"", b"hello", b"\x89PNG\r\n\x1a\n", file_of(corners(), "GIF"), file_of(corners(), "BMP")])
def test_other_files_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not a JPEG, PNG or WebP file"):
        decode(body)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_cut_off_file_is_refused(format_: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))
    whole = file_of(noise, format_)
    with pytest.raises(BadRequest) as error:
        decode(whole[: len(whole) // 2])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_001), (100_000, 100_000)])
def test_size_is_refused_by_the_header_alone(width: int, height: int) -> None:
    with pytest.raises(PayloadTooLarge, match=f"{width} x {height} pixels"):
        decode(png_header(width, height))


def test_header_within_the_limit_is_not_refused_for_its_size() -> None:
    with pytest.raises(BadRequest, match="cannot be decoded"):
        decode(png_header(10_000, 5_000))


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
    image = decode(file_of(picture, format_, exif=exif, quality=95))
    expected = torch.from_numpy(np.array(corners()))
    assert image.shape == expected.shape
    assert (image[4:12:7, 4::37].int() - expected[4:12:7, 4::37].int()).abs().max() < 16


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_meaningless_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(file_of(corners(), exif=exif)).shape == (32, 48, 3)


def test_grey() -> None:
    assert values(decode(file_of(Image.new("L", (5, 4), 77)))) == {77}


def test_black_and_white() -> None:
    assert values(decode(file_of(Image.new("1", (5, 4), 1)))) == {255}


def test_sixteen_bit_grey_is_scaled() -> None:
    image = Image.fromarray(np.full((4, 5), 77 * 256 + 9, np.uint16))
    assert values(decode(file_of(image))) == {77}


def test_palette() -> None:
    image = decode(file_of(corners().convert("P", palette=Image.Palette.ADAPTIVE)))
    assert torch.equal(image, torch.from_numpy(np.array(corners())))


def test_cmyk() -> None:
    image = decode(file_of(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert (image.int() - torch.tensor([255, 0, 0])).abs().max() < 12


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_transparent_parts_are_white(format_: str) -> None:
    image = decode(file_of(Image.new("RGBA", (6, 5), (255, 0, 0, 0)), format_, lossless=True))
    assert values(image) == {255}


def test_half_transparent_grey_is_mixed_with_white() -> None:
    assert values(decode(file_of(Image.new("LA", (6, 5), (0, 128))))) == {127}


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (6, 5), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    assert values(decode(file_of(image, transparency=1))) == {255}


@pytest.fixture
def prediction() -> Prediction:
    alpha = torch.arange(35, dtype=torch.uint8).reshape(5, 7) * 7
    return Prediction(alpha, torch.stack((alpha, 255 - alpha, alpha // 2), dim=-1))


def test_encodes_alpha_as_grey_png(prediction: Prediction) -> None:
    body, content_type = encode(prediction, "image/png")
    image = Image.open(io.BytesIO(body))
    assert (content_type, image.format, image.mode) == ("image/png", "PNG", "L")
    assert np.array_equal(np.array(image), prediction.alpha.numpy())


def test_encodes_the_cutout_as_rgba_png(prediction: Prediction) -> None:
    body, content_type = encode(prediction, "image/png;cutout")
    image = Image.open(io.BytesIO(body))
    assert (content_type, image.mode) == ("image/png", "RGBA")
    assert np.array_equal(np.array(image)[..., 3], prediction.alpha.numpy())
    assert np.array_equal(np.array(image)[..., :3], prediction.foreground.numpy())


def test_encodes_json(prediction: Prediction) -> None:
    body, content_type = encode(prediction, "application/json")
    record = json.loads(body)
    assert content_type == "application/json"
    assert (record["width"], record["height"]) == (7, 5)
    image = Image.open(io.BytesIO(base64.b64decode(record["alpha"])))
    assert np.array_equal(np.array(image), prediction.alpha.numpy())


def test_encodes_npy(prediction: Prediction) -> None:
    body, content_type = encode(prediction, "application/x-npy")
    array = np.load(io.BytesIO(body))
    assert (content_type, array.dtype) == ("application/x-npy", np.uint8)
    assert np.array_equal(array, prediction.alpha.numpy())


def test_nothing_acceptable_to_encode(prediction: Prediction) -> None:
    with pytest.raises(NotAcceptable):
        encode(prediction, "video/mp4")
