from __future__ import annotations

import base64

import numpy as np
import pytest

from matting.options import Options
from matting.photo_file import PhotoFile, is_picture_type
from multigpu_inference.errors import BadRequest

PICTURE = bytes(range(256)) * 3
PACKED = base64.b64encode(PICTURE)


def packed(text: bytes) -> PhotoFile:
    return PhotoFile(np.frombuffer(text, np.uint8), Options(), is_base64=True)


def test_a_file_is_as_it_is() -> None:
    file = PhotoFile(np.frombuffer(PACKED, np.uint8), Options())
    assert bytes(file.unpacked()) == PACKED


@pytest.mark.parametrize(
    "text",
    [
        PACKED,
        base64.encodebytes(PICTURE),  # lines of 76 characters, as the command `base64` prints
        PACKED.replace(b"A", b"\r\nA\t "),
        b"data:image/jpeg;base64," + PACKED,  # as a browser's FileReader gives
        b" DATA:image/png;charset=x;BASE64,\n" + base64.encodebytes(PICTURE),
    ],
)
def test_base64_as_clients_send_it(text: bytes) -> None:
    assert packed(text).unpacked() == PICTURE


@pytest.mark.parametrize(
    "text",
    [
        b"@@@@",
        b"AAA",
        b"AAAA=AAA",
        b"no base64!",
        b"data:image/jpeg," + PACKED,
        b"data:" + b"x" * 300 + b";base64," + PACKED,
        PACKED + b"data:;base64," + PACKED,
    ],
)
def test_what_is_no_base64(text: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^'image' is not valid base64$"):
        packed(text).unpacked()


@pytest.mark.parametrize(
    ("content_type", "is_one"),
    [
        ("image/jpeg", True),
        ("IMAGE/anything; a=b", True),
        ("application/octet-stream", True),
        ("application/x-image", True),
        ("", False),
        ("image", False),
        ("text/plain", False),
        ("application/json", False),
    ],
)
def test_types_of_pictures(content_type: str, is_one: bool) -> None:
    assert is_picture_type(content_type) is is_one
