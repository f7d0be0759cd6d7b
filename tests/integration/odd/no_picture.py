"""Files of other formats, of several at once, and of none."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from functools import partial

from PIL import Image

from integration.odd.photo import FORMATS, MAGICS, NO_PICTURE, OddPhoto, good, refused, saved
from unit.code.matting.pictures import corners, file_of


def _foreign() -> dict[str, bytes]:
    return {
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "zip": b"PK\x03\x04\x14\0\0\0\0\0" + bytes(20),
        "html": b"<!doctype html><script>alert(1)</script>\n",
        "gif": file_of(Image.new("P", (4, 4)), "GIF"),
        "php": b"<?php phpinfo(); ?>",
    }


def polyglots() -> Iterator[OddPhoto]:
    for format_ in FORMATS:
        for name, other in _foreign().items():
            front = partial(lambda f, other: other + saved(f)(), format_, other)
            behind = partial(lambda f, other: saved(f)() + other, format_, other)
            yield refused(f"{name}-and-{format_.lower()}", front, NO_PICTURE)
            yield good(f"{format_.lower()}-and-{name}", behind, apart=12)


_OTHER_FORMATS = (
    *("GIF", "TIFF", "BMP", "ICO", "PPM", "JPEG2000", "TGA", "PCX", "SGI"),
    *("EPS", "PDF", "DDS", "DIB", "AVIF", "ICNS", "QOI"),
)


def no_pictures() -> Iterator[OddPhoto]:
    picture = corners()
    for format_ in _OTHER_FORMATS:
        yield refused(f"format-{format_.lower()}", partial(file_of, picture, format_), NO_PICTURE)
    yield refused("format-xbm", partial(file_of, picture.convert("1"), "XBM"), NO_PICTURE)
    yield refused("format-msp", partial(file_of, picture.convert("1"), "MSP"), NO_PICTURE)
    yield refused("format-spider", partial(file_of, picture.convert("F"), "SPIDER"), NO_PICTURE)
    frames = [Image.new("P", (4, 4), 1), Image.new("P", (4, 4), 2)]
    animated = partial(file_of, frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield refused("format-gif-animated", animated, NO_PICTURE)
    heads = {
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40),
        "avif-head": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(40),
        "mp4": b"\0\0\0\x18ftypisom" + bytes(40),
        "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 32, 48, 8, 3) + bytes(40),
        "fli": struct.pack("<IHHHHHHI", 128, 0xAF11, 1, 48, 32, 8, 3, 5) + bytes(120),
        "svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n(/etc/passwd) (r) file\n",
        "jpeg-xl": b"\xff\x0a" + bytes(40),
        "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
        "avi": b"RIFF\x24\0\0\0AVI LIST" + bytes(30),
        "text": b"not a picture at all\n",
        "json": json.dumps({"image": "aGk="}).encode(),
        "elf": b"\x7fELF\2\1\1" + bytes(60),
        "gzip": zlib.compress(bytes(1000), wbits=31),
        "gzipped-png": zlib.compress(file_of(picture), wbits=31),
        "base64-of-a-png": b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
        "one-zero": b"\0",
        "zeros": bytes(5000),
        "png-after-line-ends-were-changed": file_of(picture).replace(b"\r\n", b"\n"),
    }
    for name, data in heads.items():
        yield refused(f"no-picture-{name}", partial(bytes, data), NO_PICTURE)
    yield refused("empty", bytes, f"{NO_PICTURE}|empty")
    for format_, magic in zip(("jpeg", "png"), MAGICS, strict=False):
        yield refused(f"{format_}-only-its-magic", partial(bytes, magic))
