"""PNG files of every kind, and with chunks that are odd, broken or bombs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from integration.odd.photo import (
    BLACK,
    BLUE,
    CORNERS,
    GREEN,
    RED,
    SIZE,
    TOO_MANY_PIXELS,
    WHITE,
    Colour,
    OddPhoto,
    either,
    good,
    refused,
)
from unit.code.matting.pictures import corners, png_chunk, png_header

Samples = npt.NDArray[np.uint16]
_PNG = b"\x89PNG\r\n\x1a\n"
# Of each pass: its first x and y, and the steps.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6  # a PNG's colour types


def png(
    samples: Samples,
    depth: int,
    kind: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    behind: bytes = b"",
    parts: int = 1,
    missing: int = 0,
) -> bytes:
    """A PNG file of any kind.

    Args:
        samples: uint16 [H, W, bands], each below 2 to the power of `depth`.
        depth: bits of a sample.
        kind: the colour type.
        interlaced: whether in seven passes.
        before: chunks before the pixels.
        behind: chunks behind them.
        parts: of how many chunks the pixels are.
        missing: rows left out at the end.
    """
    height, width = samples.shape[:2]
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in _ADAM7] if interlaced else [samples[: height - missing]]
    packed = zlib.compress(b"".join(_rows(each, depth) for each in passes if each.size))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    step = -(-len(packed) // parts)
    pixels = b"".join(png_chunk(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step))
    return _PNG + png_chunk(b"IHDR", header) + before + pixels + behind + png_chunk(b"IEND", b"")


def _rows(samples: Samples, depth: int) -> bytes:
    flat = samples.reshape(samples.shape[0], -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8).reshape(len(flat), -1)
    else:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def _samples(depth: int, kind: int) -> Samples:
    """Black and white above, a dark grey below; of colours `corners`, which are a palette's entries."""
    most = (1 << depth) - 1
    if kind in (_GREY, _GREY_ALPHA):
        values = np.full((32, 48, 1), most // 3, np.uint16)
        values[:16, :24], values[:16, 24:] = 0, most
    elif kind == _PALETTE:
        values = np.full((32, 48, 1), min(2, most), np.uint16)
        values[:16, :24], values[:16, 24:] = 0, 1
    else:
        values = np.asarray(corners(), np.uint16) // 255 * most
    if kind in (_GREY_ALPHA, _RGBA):
        values = np.dstack((values, np.full((32, 48), most, np.uint16)))
    return values


def _colours(depth: int, kind: int) -> tuple[tuple[int, int, Colour], ...]:
    most = (1 << depth) - 1
    below = most // 3 * 255 // most
    if kind in (_GREY, _GREY_ALPHA):
        return (6, 6, BLACK), (42, 6, WHITE), (6, 27, (below, below, below))
    return (*CORNERS[:2], (6, 27, BLUE if kind != _PALETTE or depth > 1 else GREEN))


_PLTE = png_chunk(b"PLTE", bytes((*RED, *GREEN, *BLUE)))
_PLTE_2 = png_chunk(b"PLTE", bytes((*RED, *GREEN)))
_KINDS = {
    "grey": (_GREY, (1, 2, 4, 8, 16)),
    "rgb": (_RGB, (8, 16)),
    "palette": (_PALETTE, (1, 2, 4, 8)),
    "grey-alpha": (_GREY_ALPHA, (8, 16)),
    "rgba": (_RGBA, (8, 16)),
}


def _palette(depth: int, kind: int) -> bytes:
    return b"" if kind != _PALETTE else _PLTE_2 if depth == 1 else _PLTE


def with_chunks(*chunks: bytes, behind: bool = False) -> Callable[[], bytes]:
    kept = b"".join(chunks)
    return partial(png, _samples(8, _RGB), 8, _RGB, before=b"" if behind else kept, behind=kept if behind else b"")


def png_kinds() -> Iterator[OddPhoto]:
    for name, (kind, depths) in _KINDS.items():
        for depth in depths:
            for interlaced in (False, True):
                make = partial(png, _samples(depth, kind), depth, kind, interlaced=interlaced, before=_palette(depth, kind))
                yield good(f"png-{name}-{depth}{'-interlaced' * interlaced}", make, _colours(depth, kind))
    for depth in (1, 2, 4, 8, 16):  # the dark grey below is transparent; of one bit the black above
        most = (1 << depth) - 1
        before = png_chunk(b"tRNS", struct.pack(">H", most // 3))
        make = partial(png, _samples(depth, _GREY), depth, _GREY, before=before)
        yield good(f"png-grey-{depth}-trns", make, ((6, 6, WHITE if depth == 1 else BLACK), (42, 6, WHITE), (6, 27, WHITE)))
    for depth in (8, 16):  # red is transparent
        before = png_chunk(b"tRNS", struct.pack(">HHH", (1 << depth) - 1, 0, 0))
        make = partial(png, _samples(depth, _RGB), depth, _RGB, before=before)
        yield good(f"png-rgb-{depth}-trns", make, ((6, 6, WHITE), *CORNERS[1:]))
    for depth in (1, 2, 4, 8):  # green is half transparent
        before = _palette(depth, _PALETTE) + png_chunk(b"tRNS", b"\xff\x80")
        make = partial(png, _samples(depth, _PALETTE), depth, _PALETTE, before=before)
        yield good(f"png-palette-{depth}-trns", make, ((6, 6, RED), (42, 6, (127, 255, 127))))
    too_long = _PLTE + png_chunk(b"tRNS", b"\xff" * 400)
    yield either("png-palette-trns-too-long", partial(png, _samples(8, _PALETTE), 8, _PALETTE, before=too_long))
    yield either("png-palette-without-palette", partial(png, _samples(8, _PALETTE), 8, _PALETTE))
    yield either("png-palette-index-beyond", partial(png, _samples(8, _PALETTE), 8, _PALETTE, before=_PLTE_2))
    transparent = np.dstack((np.asarray(corners(), np.uint16), np.zeros((32, 48), np.uint16)))
    yield good("png-rgba-all-transparent", partial(png, transparent, 8, _RGBA), ((6, 6, WHITE), (42, 27, WHITE)))


def png_chunks() -> Iterator[OddPhoto]:
    yield good("png-many-idat", partial(png, _samples(8, _RGB), 8, _RGB, parts=100))
    harmless = {
        "gamma": png_chunk(b"gAMA", struct.pack(">I", 45455)),
        "gamma-zero": png_chunk(b"gAMA", bytes(4)),
        "chrm": png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        "srgb": png_chunk(b"sRGB", b"\0"),
        "density": png_chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        "density-zero": png_chunk(b"pHYs", bytes(9)),
        "background": png_chunk(b"bKGD", struct.pack(">HHH", 0, 255, 0)),
        "significant-bits": png_chunk(b"sBIT", b"\5\6\5"),
        "time": png_chunk(b"tIME", struct.pack(">HBBBBB", 2026, 2, 30, 25, 61, 61)),
        "hdr": png_chunk(b"cICP", bytes((9, 16, 0, 1))),
        "itxt": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>"),
        "itxt-no-utf-8": png_chunk(b"iTXt", b"Comment\0\0\0\0\0\xff\xfe"),
        "unknown-chunk": png_chunk(b"vpAg", bytes(9)),
        "many-chunks": png_chunk(b"tEXt", b"a\0b") * 5000,
        "exif-garbage": png_chunk(b"eXIf", b"garbage"),
        "exif-in-text": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      9\nnot hex \n")),
    }
    for name, chunk in harmless.items():
        yield good(f"png-{name}", with_chunks(chunk))
    yield good("png-text-behind", with_chunks(png_chunk(b"tEXt", b"a\0b"), behind=True))
    odd = {
        "short-gamma": png_chunk(b"gAMA", b"\0"),
        "short-chrm": png_chunk(b"cHRM", bytes(3)),
        "short-density": png_chunk(b"pHYs", b"\0"),
        "empty-text": png_chunk(b"tEXt", b""),
        "empty-itxt": png_chunk(b"iTXt", b""),
        "empty-srgb": png_chunk(b"sRGB", b""),
        "unknown-critical": png_chunk(b"ABCD", bytes(9)),
        "second-header": png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)),
        "animation-control-short": png_chunk(b"acTL", bytes(3)),
        "animation-of-no-frames": png_chunk(b"acTL", bytes(8)),
        "animation-of-2-31-frames": png_chunk(b"acTL", struct.pack(">II", 1 << 31, 0)),
    }
    for name, chunk in odd.items():
        yield either(f"png-{name}", with_chunks(chunk))
    for name, kind in {"text": b"tEXt", "unknown": b"vpAg", "header": b"IHDR", "pixels": b"IDAT", "end": b"IEND"}.items():
        yield either(f"png-wrong-crc-{name}", partial(_wrong_crc, kind))
    for name, head in {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0"}.items():
        for behind in (False, True):
            make = partial(_bomb, name.encode(), head, behind)
            yield refused(f"png-{name.lower()}-bomb{'-behind' * behind}", make)
    yield either("png-text-of-60-mb", partial(_many_texts, 60), SIZE)
    yield refused("png-text-of-90-mb", partial(_many_texts, 90))
    yield either("png-pixels-that-inflate-to-300-mb", _inflating)
    yield either("png-pixels-missing", partial(png, _samples(8, _RGB), 8, _RGB, missing=8))
    yield refused("png-no-zlib", lambda: _raw_png(struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0), b"no zlib at all"))
    rows = zlib.compress((b"\x09" + bytes(48 * 3)) * 32)
    yield either("png-unknown-filter", lambda: _raw_png(struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0), rows))
    for name, header in {
        "0-x-0": (0, 0, 8, 2, 0, 0, 0),
        "0-x-9": (0, 9, 8, 2, 0, 0, 0),
        "9-x-0": (9, 0, 8, 2, 0, 0, 0),
        "depth-3": (9, 9, 3, 2, 0, 0, 0),
        "depth-0": (9, 9, 0, 0, 0, 0, 0),
        "kind-5": (9, 9, 8, 5, 0, 0, 0),
        "compression-1": (9, 9, 8, 2, 1, 0, 0),
        "filter-1": (9, 9, 8, 2, 0, 1, 0),
    }.items():
        yield refused(f"png-header-{name}", partial(_raw_png, struct.pack(">IIBBBBB", *header), zlib.compress(b"")))
    interlace_2 = struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 2)
    yield either("png-header-interlace-2", lambda: _raw_png(interlace_2, zlib.compress((b"\0" + bytes(48 * 3)) * 32)))
    yield refused("png-header-short", partial(_raw_png, b"\0\0\0\x09", b""))
    for width, height in ((65_535, 65_535), (50_000_001, 1), (1, 50_000_001), ((1 << 31) - 1, (1 << 31) - 1)):
        yield refused(f"png-{width}-x-{height}", partial(png_header, width, height), TOO_MANY_PIXELS, 413)
    yield refused("png-50000000-x-1-without-pixels", partial(png_header, 50_000_000, 1))


def _raw_png(header: bytes, pixels: bytes) -> bytes:
    return _PNG + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def _wrong_crc(kind: bytes) -> bytes:
    whole = bytearray(with_chunks(png_chunk(b"tEXt", b"a\0b"), png_chunk(b"vpAg", bytes(9)))())
    at = whole.index(kind) - 4
    whole[at + 8 + int.from_bytes(whole[at : at + 4], "big")] ^= 0xFF
    return bytes(whole)


def _bomb(kind: bytes, head: bytes, behind: bool) -> bytes:
    return with_chunks(png_chunk(kind, head + zlib.compress(bytes(20_000_000))), behind=behind)()


def _many_texts(count: int) -> bytes:
    packed = zlib.compress(bytes(1_000_000))
    return with_chunks(*(png_chunk(b"zTXt", b"a%d\0\0" % number + packed) for number in range(count)))()


def _inflating() -> bytes:
    packer = zlib.compressobj(9)
    rows = (b"\0" + bytes(48 * 3)) * 32
    packed = packer.compress(rows) + b"".join(packer.compress(bytes(10_000_000)) for _ in range(30)) + packer.flush()
    return _raw_png(struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0), packed)
