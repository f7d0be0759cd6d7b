"""Photos that lie on their side, and EXIF that is odd or broken."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from PIL import Image

from integration.odd.photo import BLUE, FORMATS, GREEN, RED, OddPhoto, good, saved
from unit.code.matting.pictures import corners, file_of

_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _turned(orientation: int) -> Image.Image:
    how = _STORED[orientation]
    return corners() if how is None else corners().transpose(how)


def _exif(orientation: int, byte_order: str = ">", kind: int = 3, count: int = 1) -> bytes:
    head = b"Exif\0\0" + (b"MM\0*" if byte_order == ">" else b"II*\0")
    value = struct.pack(f"{byte_order}{'HH' if kind == 3 else 'I'}", *((orientation, 0) if kind == 3 else (orientation,)))
    return head + struct.pack(f"{byte_order}IHHHI", 8, 1, 0x0112, kind, count) + value + bytes(4)


def _exif_with_thumbnail() -> bytes:
    thumbnail = file_of(Image.new("RGB", (8, 8)), "JPEG")
    first = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 1, 0, 26)
    second = struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, 56) + struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail))
    return b"Exif\0\0II*\0\x08\0\0\0" + first + second + bytes(4) + thumbnail


def _jpeg_with_exif(exif: bytes) -> bytes:
    return saved("JPEG", exif=exif)()


def exifs() -> Iterator[OddPhoto]:
    for format_ in FORMATS:
        for orientation in _STORED:
            make = partial(lambda f, o: saved(f, partial(_turned, o), exif=_exif(o))(), format_, orientation)
            yield good(f"{format_.lower()}-orientation-{orientation}", make, apart=12)
    loop = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + struct.pack(">I", 8)
    broken = {
        "little-endian-9": _exif(9, "<"),
        "orientation-0": _exif(0),
        "orientation-65535": _exif(65_535),
        "no-values": _exif(6, count=0)[:-4],
        "many-values": _exif(1, count=0xFFFF),
        "loop": loop,
        "only-a-head": b"Exif\0\0",
        "garbage": b"Exif\0\0" + bytes(range(256)),
        "offset-beyond": b"Exif\0\0II*\0\xff\xff\xff\xff",
        "entries-beyond": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40,
        "large": _exif(1) + bytes(60_000),
    }
    for name, exif in broken.items():
        yield good(f"jpeg-exif-{name}", partial(_jpeg_with_exif, exif), apart=12)
    yield good("webp-exif-garbage", saved("WEBP", exif=b"Exif\0\0" + bytes(range(256))))
    turned = partial(_jpeg_with_exif, _exif(6, "<"))
    yield good("jpeg-orientation-6-little-endian", turned, ((25, 6, RED), (25, 42, GREEN), (4, 6, BLUE)), (32, 48), apart=12)
    yield good("jpeg-with-a-thumbnail", partial(_jpeg_with_exif, _exif_with_thumbnail()), apart=12)
    as_long = partial(_jpeg_with_exif, _exif(6, kind=4))
    yield good("jpeg-orientation-as-a-long-number", as_long, ((25, 6, RED), (25, 42, GREEN)), (32, 48), apart=12)
