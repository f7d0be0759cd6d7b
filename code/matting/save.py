"""The name under which a client wants its result stored, and where names belong. It travels with the photo.

Checked in the fetch process, before anything is fetched or computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from matting.accept import JSON, NPY, PNG, WEBP, choose, or_any
from matting.s3_location import S3Location
from matting.shown import shown
from multigpu_inference.errors import BadRequest

MAX_LENGTH = 200
_TYPES = {".png": PNG, ".webp": WEBP, ".npy": NPY}
_ENDINGS = {media_type: ending for ending, media_type in _TYPES.items()}
# Endings that would promise another format than what is stored.
_OTHER_FORMATS = (".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".svg", ".json", ".npz")
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"  # with no dot before it: neither hidden, nor `..`
_ALLOWED = re.compile(rf"(?:{_PART}/)?{_PART}", re.ASCII)


@dataclass(frozen=True)
class Save:
    """A result to store.

    Attributes:
        name: With its ending, once `media_type` is known.
        media_type: What is stored: PNG, WebP or npy; "": Accept has not been asked yet.
        place: The bucket and prefix that the operator has set; None: there is none, and nothing is stored.
        in_output_fn: Whether `output_fn` has to store it, because nobody calls `store_fn`: outside the container.
    """

    name: str
    media_type: str = ""
    place: S3Location | None = None
    in_output_fn: bool = False

    @classmethod
    def of_name(cls, name: Any) -> Save:
        """Check a name.

        Raises:
            BadRequest: it is none that is allowed; the text says which are.
        """
        allowed = f"1 to {MAX_LENGTH} of the characters A-Z a-z 0-9 . _ -, with one / between them at most and no dot in front"
        if not isinstance(name, str) or len(name) > MAX_LENGTH or not _ALLOWED.fullmatch(name):
            raise BadRequest(f"'save_name' is {shown(name)}: allowed are {allowed}")
        ending = _ending(name)
        if ending in _OTHER_FORMATS:
            possible = "possible are .png, .webp and .npy, or none of them: then Accept's type is added"
            raise BadRequest(f"'save_name' ends in {ending}: {possible}")
        return cls(name, _TYPES.get(ending, ""))

    def with_accept(self, accept: str) -> Save:
        """The same with Accept's type and its ending where the name has none; PNG where that type cannot be stored."""
        if self.media_type:
            return self
        asked = choose(or_any(accept)).media_type
        media_type = PNG if asked == JSON else asked
        return replace(self, name=self.name + _ENDINGS[media_type], media_type=media_type)

    @property
    def location(self) -> S3Location:
        """Where it is stored. Never outside the operator's prefix: a name has no segment that could lead there."""
        if self.place is None:
            raise ValueError("there is no place to store anything at")
        return self.place.join(self.name)


def _ending(name: str) -> str:
    last = name.rpartition("/")[2]
    stem, dot, ending = last.rpartition(".")
    return f".{ending.lower()}" if stem and dot else ""
