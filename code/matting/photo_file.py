"""A photo's file as it goes from the fetch process to `input_fn`: still packed where it came so."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from matting.options import Options
from matting.photo_request import FileBytes
from matting.save import Save
from multigpu_inference.errors import BadRequest

# What a picture may be sent as beside an image type, of which any is taken: what counts is the file.
_UNNAMED_TYPES = ("application/x-image", "application/octet-stream")
TYPES = ("image/jpeg", "image/png", "image/webp", *_UNNAMED_TYPES)  # to name to a client
_DATA_URL = re.compile(rb"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
_WHITE_SPACE = b" \t\r\n"


def is_picture_type(content_type: str) -> bool:
    """Whether a picture's own bytes may have this Content-Type; parameters after `;` are ignored."""
    media_type = content_type.split(";")[0].strip().lower()
    return media_type.startswith("image/") or media_type in _UNNAMED_TYPES


@dataclass(frozen=True, eq=False)
class PhotoFile:
    """A photo's file, what is wanted of it, and what is stored: what `input_fn` is given in the body's place.

    Attributes:
        data: The file's bytes, or their base64.
        options: What is made of it.
        save: What is stored; None: nothing.
        is_base64: Whether `data` is base64. It is left to the pool's many processes: all requests share one fetch process.
    """

    data: FileBytes
    options: Options
    save: Save | None = None
    is_base64: bool = False

    def unpacked(self) -> Any:
        """The file itself, bytes-like.

        Raises:
            BadRequest: its base64 is none. Lines are taken as `base64` breaks them, and `data:image/…;base64,` before it.
        """
        if not self.is_base64:
            return self.data
        text = self.data.tobytes()
        head = _DATA_URL.match(text)
        try:
            return base64.b64decode(text[head.end() if head else 0 :].translate(None, _WHITE_SPACE), validate=True)
        except ValueError as error:
            raise BadRequest("'image' is not valid base64") from error
