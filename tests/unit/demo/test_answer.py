"""What the demo reads from an answer."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from answer import parse_attributes, upright_size
from demo_error import DemoError


def test_padded_attributes_are_read() -> None:
    assert parse_attributes("request_id=a1;replica=0;queue_ms=1.2      ") == {
        "request_id": "a1",
        "replica": "0",
        "queue_ms": "1.2",
    }


def test_no_attributes_are_no_error() -> None:
    assert parse_attributes("") == {}


def test_a_size_is_that_of_the_picture_as_it_is_shown() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (40, 30)).save(file, "JPEG", exif=exif)
    assert upright_size(file.getvalue()) == (30, 40)


def test_what_is_not_a_picture_is_named_so() -> None:
    with pytest.raises(DemoError, match="not a picture"):
        upright_size(b"<html>")
