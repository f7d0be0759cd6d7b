"""What `input_fn` returns: a photo's pixels and what is wanted of them. Made in a pool worker, used in a replica worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from matting.accept import CUTOUT, JSON
from matting.decode import decode
from matting.fetch import fetch_photo
from matting.options import Options
from matting.photo_file import TYPES, PhotoFile, is_picture_type
from matting.photo_request import PhotoRequest, read_json
from matting.pipeline import MAX_PIXELS
from matting.save import Save
from matting.settings import Settings
from multigpu_inference.errors import BadRequest, UnsupportedMediaType


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo to matte.

    Attributes:
        pixels: Upright RGB, uint8 [H, W, 3]; on the CPU.
        options: What is made of it.
        size: Height and width of the answer, in pixels.
        save: What is stored, if anything.
    """

    pixels: Tensor
    options: Options
    size: tuple[int, int]
    save: Save | None = None


def read_photo(body: Any, content_type: str, accept: str | None, settings: Settings) -> Photo:
    """Read a request's photo.

    Args:
        body: what `fetch_fn` made of the body; or else the body itself, a JPEG, PNG or WebP file or a JSON object,
            bytes-like or text.
        content_type: the request's Content-Type; parameters after `;` are ignored, and a picture's own format counts.
        accept: the request's Accept header; None where it is not known yet. What `fetch_fn` made has seen it already.
        settings: the operator's.

    Raises:
        UnsupportedMediaType: the content type is none of those above.
        NotAcceptable: nothing that the client accepts can be made.
        BadRequest: the body cannot be read.
        PayloadTooLarge: the picture has too many pixels or bytes.
    """
    photo = body if isinstance(body, PhotoFile) else _unfetched(body, content_type, accept, settings)
    options = photo.options
    decoded = decode(
        photo.unpacked(),
        max_photo_pixels=settings.max_photo_pixels,
        max_side=options.max_side,
        enough_pixels=_enough_pixels(options, settings),
    )
    return Photo(decoded.pixels, options, decoded.size, photo.save)


def _unfetched(body: Any, content_type: str, accept: str | None, settings: Settings) -> PhotoFile:
    """The photo of a body that came past `fetch_fn`: a picture's own bytes, or JSON where nobody calls it."""
    if is_picture_type(content_type):
        options = Options() if accept is None else Options().with_accept(accept)
        return PhotoFile(np.frombuffer(body.encode() if isinstance(body, str) else body, np.uint8), options)
    if content_type.split(";")[0].strip().lower() != JSON:
        raise UnsupportedMediaType(f"the content type must be one of {', '.join((*TYPES, JSON))}")
    request = read_json(body)
    if not isinstance(request, PhotoRequest):
        raise BadRequest("a list of requests needs the container that this script is written for; send one object")
    request = request if accept is None else request.with_accept(accept)
    if request.save is not None:
        request = replace(request, save=replace(request.save, in_output_fn=True))
    return fetch_photo(request, settings)


def _enough_pixels(options: Options, settings: Settings) -> int:
    """Beyond how many pixels the answer does not need finer ones; 0 where it needs them all."""
    if not options.outputs or CUTOUT in options.outputs:
        return 0
    # The pool does not know the replicas' device: the larger of the two limits.
    return MAX_PIXELS["cuda"] if settings.matting_max_pixels is None else settings.matting_max_pixels
