"""A prediction to an answer's bytes: PNG, WebP, npy, or JSON with one of them in base64. Runs in the pool workers."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from matting.accept import ALPHA, CUTOUT, JSON, NPY, PNG, choose, or_any
from matting.options import Options
from matting.prediction import Prediction
from matting.store import store
from multigpu_inference.errors import NotAcceptable

Pixels = npt.NDArray[np.uint8]

# An alpha is nearly flat: the fastest level costs a few percent more bytes and saves most of the time.
_PNG_LEVEL = 1
_WEBP_QUALITY = 90  # of a cut-out's colours; its alpha is kept without loss
# For a cut-out half the bytes of method 0 in 2.4 times its time, and one more percent fewer would cost more again. Without
# loss the same, where a higher effort saves nothing on an alpha.
_WEBP_METHOD = 2
_WEBP_EFFORT = 0
_WEBP_MAX_SIDE = 16_383  # the format's own


def answer(prediction: Prediction, accept: str) -> tuple[bytes, str]:
    """Make the answer.

    Args:
        prediction: on the CPU.
        accept: the request's Accept header.

    Returns:
        The body and its content type. One output is a picture or an array of its own, or JSON with `width`, `height`,
        `content_type` and the file in base64 under the output's name; several are JSON. With a `save_name`: what is to be
        stored, or JSON with `save_name` and `saved` where it is not, or is already.

    Raises:
        NotAcceptable: the client accepts none of these; what is stored does not ask for that.
    """
    if prediction.save is not None:
        save, options = prediction.save.with_accept(accept), prediction.options.with_accept(or_any(accept))
        if save.place is None:
            extra = {"save_name": save.name, "saved": False}
            return _json(prediction, options, save.media_type, extra), JSON
        body = encode(prediction, options, options.outputs[0], save.media_type)
        return store(body, save.media_type, save) if save.in_output_fn else (body, save.media_type)
    options = prediction.options.with_accept(accept)
    chosen = choose(accept, only_json=len(options.outputs) > 1).media_type
    if chosen == JSON:
        return _json(prediction, options, PNG, {}), JSON
    return encode(prediction, options, options.outputs[0], chosen), chosen


def encode(prediction: Prediction, options: Options, output: str, media_type: str) -> bytes:
    """Make one output's file.

    Args:
        prediction: on the CPU.
        options: with the background of a cut-out.
        output: `alpha`, `cutout` or `trimap`.
        media_type: PNG, WebP or npy.

    Returns:
        Alpha and trimap as 8-bit grey (WebP, which has none: RGB, without loss), npy uint8 [H, W]; the cut-out as RGBA, or
        RGB on a background, npy uint8 [H, W, 4] or [H, W, 3].

    Raises:
        NotAcceptable: the picture is too large for WebP.
    """
    pixels = _pixels(prediction, options, output)
    if media_type == NPY:
        buffer = io.BytesIO()
        np.save(buffer, pixels, allow_pickle=False)
        return buffer.getvalue()
    if media_type == PNG:
        return _file(pixels, "PNG", compress_level=_PNG_LEVEL)
    if max(pixels.shape[:2]) > _WEBP_MAX_SIDE:
        raise NotAcceptable(f"a WebP picture has at most {_WEBP_MAX_SIDE} pixels a side: ask for {PNG} or a smaller 'max_side'")
    if output == CUTOUT:
        return _file(pixels, "WEBP", quality=_WEBP_QUALITY, method=_WEBP_METHOD)
    return _file(pixels, "WEBP", lossless=True, quality=_WEBP_EFFORT, method=_WEBP_METHOD)


def _json(prediction: Prediction, options: Options, media_type: str, extra: dict[str, Any]) -> bytes:
    height, width = prediction.size
    record: dict[str, Any] = {"width": width, "height": height, "content_type": media_type}
    for output in options.outputs:
        record[output] = base64.b64encode(encode(prediction, options, output, media_type)).decode("ascii")
    return json.dumps(record | extra).encode()


def _pixels(prediction: Prediction, options: Options, output: str) -> Pixels:
    if output == CUTOUT:
        assert prediction.foreground is not None  # `Prediction.of` keeps what the outputs need
        assert prediction.alpha is not None
        foreground, alpha = prediction.foreground.numpy(), prediction.alpha.numpy()
        return np.dstack((foreground, alpha)) if options.background is None else _over(foreground, alpha, options.background)
    grey = prediction.alpha if output == ALPHA else prediction.trimap
    assert grey is not None
    return _enlarged(grey.numpy(), prediction.size, Image.Resampling.BILINEAR if output == ALPHA else Image.Resampling.NEAREST)


def _over(foreground: Pixels, alpha: Pixels, colour: tuple[int, int, int]) -> Pixels:
    """The foreground on a colour, by alpha."""
    paper = Image.new("RGB", (alpha.shape[1], alpha.shape[0]), colour)
    paper.paste(Image.fromarray(foreground), mask=Image.fromarray(alpha))
    return np.asarray(paper)


def _enlarged(grey: Pixels, size: tuple[int, int], resampling: Image.Resampling) -> Pixels:
    """At the answer's size, where the photo was decoded coarser."""
    return grey if grey.shape == size else np.asarray(Image.fromarray(grey).resize(size[::-1], resampling))


def _file(pixels: Pixels, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_, **options)
    return buffer.getvalue()
