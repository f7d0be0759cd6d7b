"""Picture files and ICC profiles for tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def file_of(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """A 48 x 32 picture: red at the upper left, green at the upper right, blue below."""
    image = Image.new("RGB", (48, 32), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 24, 16))
    image.paste((0, 255, 0), (24, 0, 48, 16))
    return image


def slopes(width: int, height: int) -> Image.Image:
    """Smooth colours, so that a reduced picture can be foretold."""
    down, across = np.mgrid[:height, :width]
    bands = (across * 255 // width, down * 255 // height, 255 - across * 255 // width)
    return Image.fromarray(np.dstack(bands).astype(np.uint8))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that announces a size and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rgb_profile(gamma: float = 1.0, *, swap: bool = False) -> bytes:
    """A display's profile, its primaries those of sRGB, or with green and blue in each other's place."""
    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142)
    if swap:
        green, blue = blue, green
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"rXYZ": _xyz(*red), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*blue)} | dict.fromkeys(
        (b"rTRC", b"gTRC", b"bTRC"), curve
    )
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float = 1.0) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))})


def cmyk_profile(lab: tuple[int, int, int]) -> bytes:
    """A printer on paper of this colour, as 8-bit L*a*b*, which any ink makes black."""
    identity = struct.pack(">9i", *(65536 if i in (0, 4, 8) else 0 for i in range(9)))
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(lab) + bytes((0, 128, 128)) * 15 + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    white = _xyz(0.9642, 1.0, 0.8249)
    name = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text" + bytes(4) + b"x\0", b"wtpt": white, **tags}
    offset, table, content = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += key + struct.pack(">II", offset + len(content), len(value))
        content += padded
    head = (
        struct.pack(">I", 128 + len(table) + len(content)) + b"lcms" + struct.pack(">I", 0x02100000) + kind + space + connection
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white[8:] + bytes(48)
    return head + table + content
