from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from matting import fetch
from matting.options import Options
from matting.photo import Photo, read_photo
from matting.photo_file import PhotoFile
from matting.pipeline import MAX_PIXELS
from matting.s3_location import S3Location
from matting.save import Save
from matting.settings import Settings
from multigpu_inference.errors import BadRequest, NotAcceptable, PayloadTooLarge, UnsupportedMediaType
from unit.code.matting.pictures import corners, file_of, slopes

SETTINGS = Settings()
CORNERS = torch.from_numpy(np.array(corners()))
LARGE = file_of(slopes(640, 480), "JPEG")


def read(body: Any, content_type: str = "image/png", accept: str | None = None, settings: Settings = SETTINGS) -> Photo:
    return read_photo(body, content_type, accept, settings)


@pytest.mark.parametrize(
    ("content_type", "format_"),
    [
        ("image/jpeg", "JPEG"),
        ("image/jpg", "JPEG"),
        ("image/png", "PNG"),
        ("image/webp", "WEBP"),
        ("application/x-image", "JPEG"),
        ("application/octet-stream", "PNG"),
        ("IMAGE/JPEG; q=1", "JPEG"),
        ("image/gif", "WEBP"),  # any image type: what counts is the file
        ("image/svg+xml", "PNG"),
        ("image/jpeg", "PNG"),
    ],
)
def test_reads_a_pictures_bytes(content_type: str, format_: str) -> None:
    photo = read(bytearray(file_of(corners(), format_)), content_type)
    assert (photo.pixels.shape, photo.pixels.dtype, photo.size) == ((32, 48, 3), torch.uint8, (32, 48))
    assert (photo.options, photo.save) == (Options(), None)
    assert (photo.pixels[2, 2].int() - torch.tensor([255, 0, 0])).abs().max() < 12


@pytest.mark.parametrize("content_type", ["", "text/csv", "text/plain", "video/mp4", "image", "multipart/form-data"])
def test_unsupported_content_type(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"image/jpeg.*application/json"):
        read(file_of(corners()), content_type)


@pytest.mark.parametrize("body", [b"", "", bytearray()])
def test_an_empty_body_is_no_picture(body: Any) -> None:
    with pytest.raises(BadRequest, match="not a JPEG, PNG or WebP"):
        read(body)


def test_reads_what_fetch_fn_made() -> None:
    file = PhotoFile(np.frombuffer(file_of(corners()), np.uint8), Options(("cutout",), (1, 2, 3), 24), Save("a"))
    photo = read(file, "application/json", "image/png")
    assert photo.pixels.shape == (16, 24, 3)
    assert (photo.options, photo.save) == (file.options, Save("a"))


@pytest.mark.parametrize("accept", ["image/png", "video/mp4"])
def test_accept_is_not_asked_again_of_what_was_fetched(accept: str) -> None:
    """An item of a list is answered in JSON, whatever the list's request accepts."""
    file = PhotoFile(np.frombuffer(file_of(corners()), np.uint8), Options(("alpha", "trimap")))
    assert read(file, "application/json", accept).options == file.options


def test_takes_base64_that_fetch_fn_has_left_as_it_is() -> None:
    packed = np.frombuffer(base64.b64encode(file_of(corners())), np.uint8)
    assert torch.equal(read(PhotoFile(packed, Options(("alpha",)), is_base64=True), "application/json").pixels, CORNERS)


def test_accept_decides_on_the_output_where_it_is_known() -> None:
    assert read(file_of(corners()), accept="image/png;cutout").options.outputs == ("cutout",)
    assert read(file_of(corners())).options.outputs == ()


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(NotAcceptable):
        read(file_of(corners()), accept="text/html")
    packed = base64.b64encode(file_of(corners())).decode()
    with pytest.raises(NotAcceptable, match="several outputs"):
        read(json.dumps({"image": packed, "output": "alpha,trimap"}), "application/json", "image/png")


def test_the_operators_limit_of_pixels() -> None:
    with pytest.raises(PayloadTooLarge, match="at most 100 are taken"):
        read(file_of(corners()), settings=Settings(max_photo_pixels=100))


@pytest.mark.parametrize(
    ("outputs", "limit", "coarse"),
    [
        (("alpha",), 10_000, True),
        (("trimap", "alpha"), 10_000, True),
        (("alpha",), 0, False),
        (("alpha",), None, False),  # it is no larger than what a GPU's network sees
        (("alpha", "cutout"), 10_000, False),
        ((), 10_000, False),
    ],
)
def test_a_photo_is_decoded_coarser_where_the_answer_shows_no_difference(
    outputs: tuple[str, ...], limit: int | None, coarse: bool
) -> None:
    file = PhotoFile(np.frombuffer(LARGE, np.uint8), Options(outputs))
    photo = read(file, settings=Settings(matting_max_pixels=limit))
    assert photo.size == (480, 640)
    assert tuple(photo.pixels.shape[:2]) == ((120, 160) if coarse else (480, 640))


def test_what_a_gpus_network_sees_is_fine_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_PIXELS, "cuda", 10_000)
    assert read(LARGE, "image/jpeg", "image/png").pixels.shape == (120, 160, 3)


def test_where_nobody_calls_fetch_fn_json_is_read_here() -> None:
    body = {"image": base64.b64encode(file_of(corners())).decode(), "max_side": 24, "save_name": "a"}
    photo = read(json.dumps(body), "application/json; charset=utf-8", settings=Settings(output_s3=S3Location("photos")))
    assert (photo.size, photo.options.max_side) == ((16, 24), 24)
    assert photo.save == replace(Save.of_name("a"), place=S3Location("photos"), in_output_fn=True)


def test_where_nobody_calls_fetch_fn_a_url_is_fetched_here(monkeypatch: pytest.MonkeyPatch) -> None:
    site = {"http://example.com/a.png": file_of(corners())}
    monkeypatch.setattr(fetch, "fetch_url", lambda url, **_: site[url])
    assert torch.equal(read(b'{"url": "http://example.com/a.png"}', "application/json").pixels, CORNERS)


def test_a_list_needs_the_container() -> None:
    with pytest.raises(BadRequest, match="a list of requests needs the container"):
        read('[{"url": "http://127.0.0.1:1"}]', "application/json")


@pytest.mark.parametrize("body", ["{}", "[]", '{"image": "AAAA"}'])
def test_bad_json(body: str) -> None:
    with pytest.raises(BadRequest):
        read(body, "application/json")
