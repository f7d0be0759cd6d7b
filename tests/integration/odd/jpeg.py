"""JPEG files of every kind, and with headers that are odd or broken."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

from PIL import Image

from integration.odd.photo import RED, SIZE, TOO_MANY_PIXELS, OddPhoto, either, good, refused, saved
from unit.code.matting.pictures import corners, file_of, slopes


def jpegs() -> Iterator[OddPhoto]:
    kinds: dict[str, dict[str, Any]] = {
        "progressive": {"progressive": True},
        "optimised": {"optimize": True},
        "progressive-grey-tables": {"progressive": True, "qtables": [[1] * 64]},
        "restart-rows": {"restart_marker_rows": 1},
        "restart-blocks": {"restart_marker_blocks": 1},
        "progressive-restart-blocks": {"progressive": True, "restart_marker_blocks": 1},
        "rgb-inside": {"keep_rgb": True},
        "comment": {"comment": b"\xff\xfe" * 3000},
        "density": {"dpi": (65_535, 1)},
    }
    for name, options in kinds.items():
        yield good(f"jpeg-{name}", saved("JPEG", **options), apart=12)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            make = saved("JPEG", subsampling=subsampling, progressive=progressive)
            yield good(f"jpeg-{subsampling.replace(':', '')}{'-progressive' * progressive}", make, apart=16)
    for quality in (1, 100):
        yield good(f"jpeg-quality-{quality}", saved("JPEG", quality=quality), apart=70 if quality == 1 else 6)
    yield good("jpeg-grey", saved("JPEG", lambda: Image.new("L", SIZE, 77)), ((6, 6, (77, 77, 77)),))
    yield good("jpeg-grey-progressive", saved("JPEG", lambda: Image.new("L", SIZE, 77), progressive=True), ((9, 9, (77,) * 3),))
    inks = partial(Image.new, "CMYK", SIZE, (0, 255, 255, 0))
    yield good("jpeg-cmyk", saved("JPEG", inks), ((6, 6, RED),), apart=12)
    yield good("jpeg-cmyk-progressive", saved("JPEG", inks, progressive=True), ((6, 6, RED),), apart=12)
    yield good("jpeg-cmyk-without-adobe", lambda: _without_adobe(saved("JPEG", inks)()), ((6, 6, RED),), apart=12)
    yield good("jpeg-ycck", _ycck, ((6, 6, RED),), apart=12)
    yield good("jpeg-adobe-transform-0-of-rgb", lambda: _adobe(saved("JPEG", keep_rgb=True)(), 0), apart=12)
    plain = saved("JPEG")
    yield either("jpeg-adobe-transform-9", lambda: _adobe(plain(), 9))
    yield either("jpeg-arithmetic-marker", lambda: _other_frame(plain(), 0xC9))
    for name, frame in {"lossless": 0xC3, "differential": 0xC5, "reserved": 0xC8, "arithmetic-lossless": 0xCB}.items():
        yield refused(f"jpeg-{name}-marker", lambda frame=frame: _other_frame(plain(), frame))  # type: ignore[misc]
    yield refused("jpeg-12-bits", lambda: _in_frame(_other_frame(plain(), 0xC1), 0, b"\x0c"))
    yield refused("jpeg-16-bits", lambda: _in_frame(plain(), 0, b"\x10"))
    yield refused("jpeg-height-0", lambda: _in_frame(plain(), 1, b"\0\0"))  # the standard's DNL, which nobody writes
    yield refused("jpeg-width-0", lambda: _in_frame(plain(), 3, b"\0\0"))
    yield refused("jpeg-no-components", lambda: _in_frame(plain(), 5, b"\0"))
    yield refused("jpeg-2-components", lambda: _in_frame(plain(), 5, b"\2"))
    yield refused("jpeg-255-components", lambda: _in_frame(plain(), 5, b"\xff"))
    yield refused("jpeg-65535-x-65535", lambda: _in_frame(plain(), 1, b"\xff\xff\xff\xff"), TOO_MANY_PIXELS, 413)
    yield either("jpeg-1000-x-1000-of-a-few-bytes", lambda: _in_frame(plain(), 1, struct.pack(">HH", 1000, 1000)), (1000, 1000))
    yield either("jpeg-sampling-0", lambda: _in_frame(plain(), 7, b"\0"))
    yield either("jpeg-sampling-4-4", lambda: _in_frame(plain(), 7, b"\x44"))
    yield good("jpeg-without-huffman-tables", lambda: _without(plain(), 0xC4), apart=12)  # as cameras' films have them
    for marker, name in {0xDB: "quantisation", 0xDA: "scan", 0xC0: "frame"}.items():
        yield refused(f"jpeg-without-{name}", lambda marker=marker: _without(plain(), marker))  # type: ignore[misc]
    yield good("jpeg-without-jfif", lambda: _without(plain(), 0xE0), apart=12)
    yield good("jpeg-fill-bytes", lambda: plain()[:2] + b"\xff" * 50 + plain()[2:], apart=12)
    yield either("jpeg-segment-of-no-length", lambda: plain()[:2] + b"\xff\xe5\0\0" + plain()[2:])
    yield either("jpeg-segment-beyond-the-end", lambda: plain()[:2] + b"\xff\xe5\xff\xff" + plain()[2:])
    yield good("jpeg-many-segments", lambda: plain()[:2] + b"\xff\xe5\0\2" * 5000 + plain()[2:], apart=12)
    yield good("jpeg-two-in-a-row", lambda: plain() + file_of(Image.new("RGB", (9, 9)), "JPEG"), apart=12)
    yield good("jpeg-and-trailing-zeros", lambda: plain() + bytes(100_000), apart=12)
    yield good("jpeg-of-a-phone-with-a-preview", _mpo, apart=12)
    yield either("jpeg-with-a-broken-index-of-pictures", lambda: _mpo().replace(b"MPF\0", b"MPF\0\xff\xff\xff\xff", 1))
    yield either("jpeg-progressive-with-2000-scans", _many_scans, (64, 64))


def segment(whole: bytes, marker: int) -> tuple[int, int]:
    """Where the first segment of a kind begins, its marker included, and ends."""
    at = 2
    while whole[at + 1] != marker:
        at += 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
    return at, at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")


def _without(whole: bytes, marker: int) -> bytes:
    while True:
        try:
            start, end = segment(whole, marker)
        except IndexError:
            return whole
        whole = whole[:start] + whole[end:]
        if marker == 0xDA:  # what follows are pixels
            return whole


def _without_adobe(whole: bytes) -> bytes:
    return _without(whole, 0xEE)


def _other_frame(whole: bytes, marker: int) -> bytes:
    at, _ = segment(whole, 0xC0)
    return whole[: at + 1] + bytes((marker,)) + whole[at + 2 :]


def _in_frame(whole: bytes, offset: int, new: bytes) -> bytes:
    """With other bytes in the frame's header: precision, height (2), width (2), number of components, the components."""
    at = next(segment(whole, marker)[0] for marker in (0xC0, 0xC1) if bytes((0xFF, marker, 0, 17)) in whole) + 4 + offset
    return whole[:at] + new + whole[at + len(new) :]


def _adobe(whole: bytes, transform: int) -> bytes:
    marker = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes((transform,))
    return whole[:2] + marker + _without_adobe(whole)[2:]


def _ycck() -> bytes:
    """Red as Adobe writes it: inks, of which the first three became luminance and chrominance, all inverted."""
    luminance, blue, red = Image.new("RGB", SIZE, (0, 255, 255)).convert("YCbCr").split()
    inverted = [band.point(lambda value: 255 - value) for band in (luminance, blue, red)]
    whole = file_of(Image.merge("CMYK", [*inverted, Image.new("L", SIZE, 0)]), "JPEG", quality=95, subsampling=0)
    return _adobe(whole, 2)


def _mpo() -> bytes:
    return file_of(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (12, 8))], quality=95, subsampling=0)


def _many_scans() -> bytes:
    """A few pixels that a decoder goes over again and again."""
    whole = file_of(slopes(64, 64).convert("L"), "JPEG", progressive=True, quality=95)
    at, end = segment(whole, 0xDA)
    scan = whole[at : whole.index(b"\xff", end)]
    return whole[:-2] + scan * 2000 + whole[-2:]
