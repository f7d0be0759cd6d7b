"""WebP files of every kind, and with containers that are odd or broken."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from PIL import Image

from integration.odd.photo import OddPhoto, either, good, refused, saved
from unit.code.matting.pictures import corners


def webps() -> Iterator[OddPhoto]:
    yield good("webp-lossy", saved("WEBP", lossless=False, quality=95), apart=24)
    yield good("webp-lossless", saved("WEBP"))
    yield good("webp-near-lossless-exact", saved("WEBP", exact=True, quality=0))
    half = partial(_half_transparent, "RGBA")
    over_white = ((6, 6, (255, 127, 127)), (42, 27, (127, 127, 255)))
    yield good("webp-alpha-lossless", saved("WEBP", half), over_white, apart=24)
    yield good("webp-alpha-lossy", saved("WEBP", half, lossless=False, quality=95), over_white, apart=24)
    yield good("webp-grey-alpha", saved("WEBP", partial(_half_transparent, "LA")), apart=255)
    yield good("webp-and-trailing-garbage", lambda: saved("WEBP")() + b"garbage" * 99)
    yield good("webp-unknown-chunk", lambda: _riff(_extended() + _chunks(saved("WEBP")()) + _chunk(b"ABCD", b"xyz")))
    yield good("webp-broken-xmp", lambda: _riff(_extended(4) + _chunks(saved("WEBP")()) + _chunk(b"XMP ", b"\xff<x")))
    yield either("webp-flags-that-lie", lambda: _riff(_extended(0x3C) + _chunks(saved("WEBP")())))
    yield either(
        "webp-canvas-larger-than-its-picture", lambda: _riff(_extended(0, 99, 99) + _chunks(saved("WEBP")())), (99, 99)
    )
    yield either("webp-length-too-small", lambda: _with_length(saved("WEBP")(), 20))
    yield either("webp-length-too-large", lambda: _with_length(saved("WEBP")(), 1 << 31))
    yield either("webp-length-0", lambda: _with_length(saved("WEBP")(), 0))
    lossy = saved("WEBP", lossless=False)
    yield refused("webp-0-x-0", lambda: _webp_size(lossy(), 0, 0))
    yield either("webp-16383-x-16383", lambda: _webp_size(lossy(), 16_383, 16_383), (16_383, 16_383))
    wide = (1 << 16) - 1
    for size in ((wide, wide), (1 << 24, 255), (1 << 24, 1 << 24)):
        make = partial(lambda size: _riff(_extended(2, *size) + _frames(size)), size)
        yield either(f"webp-canvas-{size[0]}-x-{size[1]}", make, size)
    yield either("webp-animated-frame-outside", lambda: _riff(_extended(2) + _frames((48, 32), at=(500, 500))))
    yield either("webp-animated-without-frames", lambda: _riff(_extended(2) + _chunk(b"ANIM", bytes(6))))
    yield refused("webp-without-a-picture", lambda: _riff(_extended()))
    yield refused("webp-only-its-head", lambda: b"RIFF\x04\0\0\0WEBP")
    yield either("webp-broken-alpha", lambda: saved("WEBP", half, lossless=False)().replace(b"ALPH", b"ALPI"))


def _half_transparent(mode: str) -> Image.Image:
    picture = corners()
    picture.putalpha(128)
    return picture.convert(mode)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _chunks(whole: bytes) -> bytes:
    return whole[12:]


def _extended(flags: int = 0, width: int = 48, height: int = 32) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return _chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size)


def _frames(size: tuple[int, int], at: tuple[int, int] = (0, 0)) -> bytes:
    head = at[0].to_bytes(3, "little") + at[1].to_bytes(3, "little") + b"\x2f\0\0\x1f\0\0" + bytes(4)
    return _chunk(b"ANIM", bytes(6)) + _chunk(b"ANMF", head + _chunks(saved("WEBP")()))


def _with_length(whole: bytes, length: int) -> bytes:
    return whole[:4] + struct.pack("<I", length) + whole[8:]


def _webp_size(whole: bytes, width: int, height: int) -> bytes:
    at = whole.index(b"\x9d\x01\x2a") + 3
    return whole[:at] + struct.pack("<HH", width, height) + whole[at + 4 :]
