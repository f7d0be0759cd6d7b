"""Bytes to pixels and back: a request's body in, its answer out. Runs in the pool workers.

Pictures come from strangers: only three formats are opened, a picture's size is looked at before its pixels
are, and every failure is one line for the client.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from matting import accept as answer
from matting.download import download
from multigpu_inference.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

MAX_PIXELS = 50_000_000
_FORMATS = ("JPEG", "PNG", "WEBP")
_PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/x-image", "application/octet-stream")
_ALSO_SENT_TYPES = ("image/jpg",)  # no registered type, but what a file's ending becomes in many clients
_JSON_TYPE = "application/json"
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
# An alpha is nearly flat: the fastest level costs a few percent more bytes and saves most of the time.
_PNG_LEVEL = 1

# Pillow only warns up to twice its own limit, and ours is lower and always an error.
Image.MAX_IMAGE_PIXELS = None


class Matted(Protocol):
    """What `encode` needs of a prediction: two tensors on the CPU."""

    @property
    def alpha(self) -> Tensor:
        """Uint8 [H, W]."""

    @property
    def foreground(self) -> Tensor:
        """Uint8 [H, W, 3], RGB."""


def read_request(body: bytes, content_type: str) -> Tensor:
    """Read the picture of a request.

    Args:
        body: a JPEG, PNG or WebP file, or a JSON object with `image` (such a file in base64) or `url` (http
            or https).
        content_type: the request's Content-Type; parameters after `;` are ignored, and a picture's own format
            counts.

    Returns:
        Upright RGB on the CPU, uint8 [H, W, 3]; transparent parts are put on white.

    Raises:
        UnsupportedMediaType: the content type is none of those above.
        BadRequest: the body cannot be read.
        PayloadTooLarge: the picture has more than 50 megapixels, or its URL more than 25 MB.
    """
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type == _JSON_TYPE:
        return decode(_picture_of_json(body))
    if media_type in (*_PICTURE_TYPES, *_ALSO_SENT_TYPES):
        return decode(body)
    raise UnsupportedMediaType(f"the content type must be one of {', '.join((*_PICTURE_TYPES, _JSON_TYPE))}")


def decode(data: bytes) -> Tensor:
    """Decode a JPEG, PNG or WebP file.

    Args:
        data: the file's bytes.

    Returns:
        Upright RGB on the CPU, uint8 [H, W, 3]; transparent parts are put on white.

    Raises:
        BadRequest: it is no such file, or a broken one.
        PayloadTooLarge: it has more than 50 megapixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise PayloadTooLarge(f"the picture has {width} x {height} pixels; at most {MAX_PIXELS} are taken")
            pixels = _to_rgb(_turn_upright(image))
    except PayloadTooLarge:
        raise
    except UnidentifiedImageError as error:
        raise BadRequest("the picture is not a JPEG, PNG or WebP file") from error
    except Exception as error:  # on broken files Pillow's decoders raise nearly anything
        raise BadRequest("the picture cannot be decoded: its file is broken or cut off") from error
    return torch.from_numpy(np.array(pixels))


def encode(prediction: Matted, accept: str) -> tuple[bytes, str]:
    """Make the answer.

    Args:
        prediction: alpha and foreground, on the CPU.
        accept: the request's Accept header.

    Returns:
        The body and its content type: alpha as 8-bit grey PNG; with `image/png;cutout` the foreground with
        alpha as RGBA PNG; JSON `{"width", "height", "alpha"}` with the alpha PNG in base64; or alpha as
        .npy, uint8 [H, W].

    Raises:
        NotAcceptable: the client accepts none of these.
    """
    chosen = answer.choose_type(accept)
    alpha = prediction.alpha.numpy()
    if chosen == answer.NPY:
        buffer = io.BytesIO()
        np.save(buffer, alpha, allow_pickle=False)
        return buffer.getvalue(), answer.NPY
    if chosen == answer.CUTOUT_PNG:
        return _png(np.dstack((prediction.foreground.numpy(), alpha))), answer.ALPHA_PNG
    png = _png(alpha)
    if chosen == answer.JSON:
        height, width = alpha.shape
        record = {"width": width, "height": height, "alpha": base64.b64encode(png).decode("ascii")}
        return json.dumps(record).encode(), answer.JSON
    return png, answer.ALPHA_PNG


def _picture_of_json(body: bytes) -> bytes:
    try:
        record: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not valid JSON") from error
    if not isinstance(record, dict) or ("image" in record) == ("url" in record):
        raise BadRequest("the JSON body must be an object with either 'image' (base64) or 'url'")
    field = "image" if "image" in record else "url"
    value = record[field]
    if not isinstance(value, str):
        raise BadRequest(f"'{field}' must be a string")
    if field == "url":
        return download(value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("'image' is not valid base64") from error


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # broken EXIF is no reason to refuse a picture that decodes
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey. Pillow's own conversion cuts off at 255 instead of scaling.
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        white = Image.new("RGBA", transparent.size, "white")
        return Image.alpha_composite(white, transparent).convert("RGB")
    return image.convert("RGB")


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
