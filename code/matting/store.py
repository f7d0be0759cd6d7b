"""Stores a result and says where it is. Runs in the fetch process, after `output_fn`."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from matting import s3
from matting.accept import JSON, NPY
from matting.save import Save


def store(body: Any, content_type: str, save: Save) -> tuple[bytes, str]:
    """Store what `output_fn` answered, and answer with where it is.

    Args:
        body: the file, bytes-like.
        content_type: what kind of file it is.
        save: its name and where names belong.

    Returns:
        JSON: `width` and `height` in pixels, `content_type`, `save_name`, `saved`, `location`.

    Raises:
        Unavailable: S3 cannot be reached now.
        ServingError: this endpoint may not write there.
    """
    data = bytes(body)
    width, height = _size(data, content_type)
    s3.put_object(save.location, data, content_type)
    record = {
        "width": width,
        "height": height,
        "content_type": content_type,
        "save_name": save.name,
        "saved": True,
        "location": str(save.location),
    }
    return json.dumps(record).encode(), JSON


def _size(data: bytes, content_type: str) -> tuple[int, int]:
    """Width and height out of the file's own header: the one who stores does not know the photo."""
    if content_type == NPY:
        height, width = np.load(io.BytesIO(data), allow_pickle=False).shape[:2]
        return width, height
    with Image.open(io.BytesIO(data)) as image:
        return image.size
