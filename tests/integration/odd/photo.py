"""A file for the application, and what is right for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unit.code.matting.pictures import corners, file_of

NO_PICTURE = "is not a JPEG, PNG or WebP file"
BROKEN = "cannot be decoded"
TOO_MANY_PIXELS = r"the picture has \d+ x \d+ pixels; at most \d+ are taken"

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
Colour = tuple[int, int, int]

FORMATS = ("JPEG", "PNG", "WEBP")
MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")


@dataclass(frozen=True)
class OddPhoto:
    """A file, and what is right for it.

    Attributes:
        name: What is odd about it.
        make: Makes the file.
        size: Width and height of the answer; `ANY`: whatever its damaged header says; None: it must be refused.
        seen: Colours of the decoded picture at places (x, y), where they can be known.
        refusal: What a refusal says, as a pattern; "": it must be answered.
        status: Of the refusal.
        apart: How far, of 255, a colour may be from what stands in `seen`.
    """

    name: str
    make: Callable[[], bytes]
    size: tuple[int, int] | None = None
    seen: tuple[tuple[int, int, Colour], ...] = ()
    refusal: str = ""
    status: tuple[int, ...] = (400,)
    apart: int = 6

    def __str__(self) -> str:
        """For a test's name."""
        return self.name


ANY = (0, 0)
CORNERS = ((6, 6, RED), (42, 6, GREEN), (6, 27, BLUE), (42, 27, BLUE))
SIZE = (48, 32)


def good(name: str, make: Callable[[], bytes], seen: Any = CORNERS, size: tuple[int, int] = SIZE, apart: int = 6) -> OddPhoto:
    return OddPhoto(name, make, size, tuple(seen), apart=apart)


def refused(name: str, make: Callable[[], bytes], refusal: str = BROKEN, status: int = 400) -> OddPhoto:
    return OddPhoto(name, make, None, refusal=refusal, status=(status,))


def either(name: str, make: Callable[[], bytes], size: tuple[int, int] = SIZE) -> OddPhoto:
    """Damaged where a decoder may or may not see it."""
    return OddPhoto(name, make, size, refusal=f"{BROKEN}|{TOO_MANY_PIXELS}", status=(400, 413))


def saved(format_: str, picture: Callable[[], Image.Image] = corners, **options: Any) -> Callable[[], bytes]:
    if format_ == "JPEG":
        options = {"quality": 95, "subsampling": 0, **options}
    if format_ == "WEBP":
        options = {"lossless": True, **options}
    return lambda: file_of(picture(), format_, **options)
