"""A photo's file to upright RGB pixels. Runs in the pool workers.

Files come from strangers: only three formats are opened, a photo's size is looked at before its pixels are, and every
failure is one line for the client. What is too fine for the answer is not decoded: a JPEG comes out of its decoder at
1/2, 1/4 or 1/8 of its size for a fraction of the work.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from matting.colour_profile import to_srgb
from matting.pipeline import working_size
from matting.settings import MAX_PHOTO_PIXELS
from multigpu_inference import log
from multigpu_inference.errors import BadRequest, PayloadTooLarge

_FORMATS = ("JPEG", "PNG", "WEBP")
_PNG_MAGIC, _JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# What Pillow raises of broken files. Of anything else the log should know: it may be a fault of ours.
_USUAL = (OSError, SyntaxError, ValueError, EOFError, LookupError, OverflowError, struct.error, zlib.error)
# By Pillow's name for how grey of few bits is stored, which it scales to 8 without what the file says of them.
_GREY_SCALES = {"L;2": 85, "L;4": 17}
# Modes whose pixels can be averaged as they are.
_REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK")
_ORIENTATION_TAG = 0x0112  # EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LIES_ON_ITS_SIDE = (5, 6, 7, 8)

# Pillow only warns up to twice its own limit, and ours is always an error.
Image.MAX_IMAGE_PIXELS = None
# Of broken EXIF and the like, about files of strangers: nothing that the operator could mend.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Decoded(NamedTuple):
    """A photo.

    Attributes:
        pixels: Upright RGB on the CPU, uint8 [H, W, 3].
        size: Height and width of the answer, in pixels. The photo's own, or as `max_side` asks; larger than the pixels'
            where no finer ones were needed.
    """

    pixels: Tensor
    size: tuple[int, int]


def decode(
    data: Any, *, max_photo_pixels: int = MAX_PHOTO_PIXELS, max_side: int | None = None, enough_pixels: int = 0
) -> Decoded:
    """Decode a JPEG, PNG or WebP file: the first picture in it, in sRGB, transparent parts put on white.

    Args:
        data: the file, bytes-like.
        max_photo_pixels: most pixels that a photo may have.
        max_side: most pixels of the result's longer side; None: the photo's own.
        enough_pixels: what a network that sees no more of a photo would throw away need not be decoded; 0: all of it.

    Raises:
        BadRequest: it is no such file, or a broken one.
        PayloadTooLarge: it has more than `max_photo_pixels`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_photo_pixels:
                raise PayloadTooLarge(f"the picture has {width} x {height} pixels; at most {max_photo_pixels} are taken")
            stored = fit((height, width), max_side)
            coarse = working_size(stored, enough_pixels)
            if coarse != (height, width):
                image.draft(None, (coarse[1], coarse[0]))  # never below what is asked for; only JPEG's decoder can
            _scale_transparency(image)
            rgb = _reduced(_to_rgb(_reduced(image, stored) if image.mode in _REDUCIBLE else image), stored)
            orientation = _orientation(image)
            turn = _UPRIGHT.get(orientation)
            pixels = np.array(rgb if turn is None else rgb.transpose(turn))
    except (PayloadTooLarge, MemoryError):
        raise
    except Exception as error:  # on broken files Pillow's decoders raise nearly anything
        if not isinstance(error, _USUAL):
            log.exception("photo_not_decoded", error)
        if isinstance(error, UnidentifiedImageError) and not _begins_as_one(bytes(memoryview(data)[:16])):
            raise BadRequest("the picture is not a JPEG, PNG or WebP file") from error
        raise BadRequest("the picture cannot be decoded: its file is broken, cut off or of a rare kind") from error
    return Decoded(torch.from_numpy(pixels), stored[::-1] if orientation in _LIES_ON_ITS_SIDE else stored)


def fit(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """The height and width of a picture whose longer side is at most `max_side`, in its proportions; never enlarged."""
    height, width = size
    longer = max(size)
    if max_side is None or longer <= max_side:
        return height, width
    return max(1, round(height * max_side / longer)), max(1, round(width * max_side / longer))


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # broken EXIF is no reason to refuse a picture that decodes
        return 1
    return orientation if isinstance(orientation, int) else 1


def _begins_as_one(head: bytes) -> bool:
    """Whether a file begins as one of the three formats, whatever else it is."""
    return head.startswith((_PNG_MAGIC, _JPEG_MAGIC)) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """At most of this height and width; the same with all that it says of itself where it is no larger."""
    if image.width <= size[1] and image.height <= size[0]:
        return image
    if isinstance(image.info.get("transparency"), int | bytes | tuple) and image.mode in ("L", "RGB"):
        return image  # one colour of it is transparent, which no mixture of it would be
    smaller = image.resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=2.0)
    smaller.info = image.info
    return smaller


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    alpha: Image.Image | None = None
    if image.has_transparency_data:
        is_grey = image.mode in ("L", "LA")
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.getchannel("R") if is_grey else image.convert("RGB")
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    rgb = to_srgb(image, profile)
    del image  # a photo may have 50 megapixels, at four bytes each for every copy
    if alpha is None:
        return rgb
    paper = Image.new("RGB", rgb.size, "white")
    paper.paste(rgb, mask=alpha)
    return paper


def _scale_transparency(image: Image.Image) -> None:
    """Bring the one transparent grey of a PNG with 2 or 4 bits to 8, as Pillow does with its pixels; before those are there."""
    transparent, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    if image.mode == "L" and isinstance(transparent, int) and tiles:
        stored_as = tiles[0][3] if isinstance(tiles[0][3], str) else ""
        image.info["transparency"] = transparent * _GREY_SCALES.get(stored_as, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, scaled to 8: Pillow's own conversion cuts off at 255 instead."""
    deep = np.asarray(image)
    grey = (deep >> 8).clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")  # the one grey that is
    if not isinstance(transparent, int):
        return Image.fromarray(grey)
    return Image.fromarray(np.dstack((grey, np.where(deep == transparent, 0, 255).astype(np.uint8))))
