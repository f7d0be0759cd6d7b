from __future__ import annotations

import base64
import difflib
import json
from typing import Any

import numpy as np
import pytest

from matting.options import Options
from matting.photo_request import PhotoRequest, read_json
from matting.save import Save
from multigpu_inference.errors import BadRequest, NotAcceptable

URL = "https://example.com/a.jpg"


def read(record: Any) -> PhotoRequest:
    request = read_json(json.dumps(record))
    assert isinstance(request, PhotoRequest)
    return request


def test_reads_a_url_with_everything() -> None:
    request = read({"url": URL, "save_name": "a/b", "output": "cutout", "background": "#fff", "max_side": 100})
    assert request.source == URL
    assert request.options == Options(("cutout",), (255, 255, 255), 100)
    assert request.save == Save("a/b")


def test_reads_base64() -> None:
    request = read({"image": base64.b64encode(b"picture").decode()})
    assert isinstance(request.source, np.ndarray)
    assert (base64.b64decode(request.source.tobytes()), request.is_base64) == (b"picture", True)  # it is left to the pool
    assert (request.options, request.save) == (Options(), None)


def test_null_is_left_out() -> None:
    request = read({"url": URL, "image": None, "save_name": None, "output": None, "background": None, "max_side": None})
    assert (request.source, request.options, request.save) == (URL, Options(), None)


@pytest.mark.parametrize("body", ['\ufeff{"url": "http://a"}', b'\xef\xbb\xbf{"url": "http://a"}'])
def test_a_byte_order_mark_is_no_part_of_it(body: str | bytes) -> None:
    request = read_json(body)
    assert isinstance(request, PhotoRequest)
    assert request.source == "http://a"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 9_999, "not valid JSON"),
        (b"[" * 10_001, "more than 10000 parts: a list has at most 100 requests"),
        (b"[" + b"{}" * 10_000, "more than 10000 parts"),
        (b"[1" + b",1" * 10_000 + b"]", "more than 10000 parts"),
        (b'{"max_side": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b'{"url": "http://a", "url": "http://b"}', "not valid JSON"),
        (b'[{"url": "http://a", "max_side": 1, "max_side": 1}]', "not valid JSON"),
        (b'{"url": "http://a", "max_side": NaN}', "not valid JSON"),
        (b'{"url": "http://a", "max_side": -Infinity}', "not valid JSON"),
        (b'{"url": "http://a", "max_side": 1e999}', "'max_side' is inf"),
        (b"3", "an object with either 'image'"),
        (b"{}", "an object with either 'image'"),
        (b'{"image": "", "url": ""}', "an object with either 'image'"),
        (b'{"image": 3}', "'image' must be a string"),
        (b'{"url": null}', "an object with either 'image'"),
        (b'{"url": 3}', "'url' must be a string"),
        (b'{"url": "http://' + b"a" * 8_000 + b'"}', "'url' is longer than 8000 characters"),
        (b'{"url": "http://a", "zzz": null}', "'zzz' is not a field"),
        (b'{"url": "http://a", "\\nfoo": 1}', r"^'\\nfoo' is not a field of a request; known are"),
        (b'{"url": "http://a", "' + b"save_name" * 5 + b'": 1}', "' is not a field of a request; known are"),
        (b'{"url": ""}', "'url' must begin with http://, https:// or s3://"),
        (b'{"url": "ftp://a/b"}', "'url' must begin with http://, https:// or s3://"),
        ('{"image": "é"}'.encode(), "not valid base64"),
        (b'{"url": "http://a", "saveName": "a"}', r"'saveName' is not a field of a request; did you mean 'save_name'\?"),
        (b'{"url": "http://a", "outputs": "a"}', r"did you mean 'output'\?"),
        (b'{"url": "http://a", "zzz": 1}', "known are url, image, save_name, output, background, max_side"),
        (b'{"url": "http://a", "output": "mask"}', "'output' is 'mask'"),
        (b'{"url": "http://a", "save_name": "../a"}', "'save_name' is '../a'"),
        (b'{"url": "http://a", "save_name": "a", "output": ["alpha", "cutout"]}', "'save_name' stores one output"),
        (b"[]", "the list has 0 items: allowed are 1 to 100"),
        (b"[" + b",".join([b"{}"] * 101) + b"]", "the list has 101 items"),
    ],
)
def test_bad_json(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as error:
        read_json(body)
    assert "\n" not in str(error.value)


def test_a_list_has_an_error_in_the_place_of_what_cannot_be_read() -> None:
    requests = read_json(json.dumps([{"url": URL}, 3, {"url": URL, "max_side": 0}, {"url": URL, "max_side": 9}]))
    assert isinstance(requests, list)
    assert [type(request) for request in requests] == [PhotoRequest, BadRequest, BadRequest, PhotoRequest]


def test_a_form_with_a_file() -> None:
    request = PhotoRequest.from_form({"output": "trimap", "max_side": "80", "save_name": "", "url": " "}, bytearray(b"picture"))
    assert isinstance(request.source, np.ndarray)
    assert request.source.tobytes() == b"picture"
    assert (request.options, request.save) == (Options(("trimap",), None, 80), None)


def test_a_form_without_a_file() -> None:
    request = PhotoRequest.from_form({"url": f" {URL}", "output": "alpha,cutout", "background": "red"}, b"")
    assert (request.source, request.options) == (URL, Options(("alpha", "cutout"), (255, 0, 0)))


def test_a_long_name_is_not_compared_with_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds of the one process that all requests share."""
    compared: list[str] = []

    def compare(name: str, *_: Any, **__: Any) -> list[str]:
        compared.append(name)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", compare)
    for length in (40, 41, 1_000_000):
        with pytest.raises(BadRequest, match="is not a field") as error:
            read({"url": URL, "x" * length: 1})
        assert len(str(error.value)) < 200
    assert [len(name) for name in compared] == [40]


@pytest.mark.parametrize(
    ("fields", "body", "message"),
    [
        ({"url": URL}, b"picture", "either a file or a field 'url'"),
        ({"image": "AAAA"}, b"picture", "no field 'image': send the photo as the form's file"),
        ({"image": "AAAA"}, b"", "no field 'image': send the photo as the form's file"),
        ({"output": "alpha"}, b"", "either a file or a field 'url'"),
        ({"colour": "red"}, b"picture", "'colour' is not a field"),
        ({"max_side": "big"}, b"picture", "'max_side' is 'big'"),
    ],
)
def test_bad_forms(fields: dict[str, str], body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        PhotoRequest.from_form(fields, body)


def test_accept_completes_a_request() -> None:
    request = read({"url": URL, "save_name": "a"}).with_accept("image/webp;cutout")
    assert request.options.outputs == ("cutout",)
    assert request.save == Save("a.webp", "image/webp")


@pytest.mark.parametrize("accept", ["text/html", "video/mp4"])
def test_what_is_stored_is_answered_in_json_whatever_is_accepted(accept: str) -> None:
    request = read({"url": URL, "save_name": "a"}).with_accept(accept)
    assert (request.options.outputs, request.save) == (("alpha",), Save("a.png", "image/png"))


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(NotAcceptable):
        read({"url": URL}).with_accept("text/html")
