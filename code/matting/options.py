"""What a client wants made of a photo. Read in the fetch process or a pool worker; it goes with the photo to `output_fn`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import ImageColor

from matting.accept import ALPHA, CUTOUT, OUTPUTS, choose
from matting.shown import shown
from multigpu_inference.errors import BadRequest

FIELDS = ("output", "background", "max_side")
MAX_SIDE = 65_535  # pixels: a JPEG's own limit
_LONGEST_OUTPUT = 100  # characters, or entries: of what is longer, nothing is looked at
_LONGEST_COLOUR = 100
_HEX_COLOUR = re.compile(r"#([0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Options:
    """One request's options.

    Attributes:
        outputs: `alpha`, `cutout`, `trimap`, or several; empty: nobody has said, and Accept decides.
        background: The colour that the cut-out is put on, RGB; None: it stays transparent.
        max_side: Most pixels of the result's longer side; None: the photo's own.
    """

    outputs: tuple[str, ...] = ()
    background: tuple[int, int, int] | None = None
    max_side: int | None = None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Options:
        """Read the fields of a JSON object or a form; numbers and lists may be text, as a form has nothing else.

        Args:
            fields: any fields; only `FIELDS` are looked at.

        Raises:
            BadRequest: a value is not allowed.
        """
        outputs = _outputs(fields["output"]) if "output" in fields else ()
        background = _colour(fields["background"]) if "background" in fields else None
        max_side = _max_side(fields["max_side"]) if "max_side" in fields else None
        if background is not None and outputs and CUTOUT not in outputs:
            raise BadRequest(f"'background' goes with the output {CUTOUT}, and 'output' is {', '.join(outputs)}")
        return cls((CUTOUT,) if background is not None and not outputs else outputs, background, max_side)

    def with_accept(self, accept: str) -> Options:
        """The same with Accept's word on the output, where the body has none.

        Raises:
            NotAcceptable: the client does not accept what these outputs can be answered as.
        """
        choice = choose(accept, only_json=len(self.outputs) > 1)
        return self if self.outputs else replace(self, outputs=(choice.output or ALPHA,))


def _outputs(value: Any) -> tuple[str, ...]:
    names: Any = value if isinstance(value, Sequence) and len(value) <= _LONGEST_OUTPUT else ()
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    valid = all(isinstance(name, str) and name in OUTPUTS for name in names)
    if not valid or not names or len(set(names)) != len(names):
        raise _refused("output", value, "alpha, cutout and trimap, or a list of several of them")
    return tuple(names)


def _colour(value: Any) -> tuple[int, int, int]:
    text = value.strip().lower() if isinstance(value, str) and len(value) <= _LONGEST_COLOUR else ""
    if not _HEX_COLOUR.fullmatch(text) and text not in ImageColor.colormap:
        raise _refused("background", value, "#rgb, #rrggbb and the names of CSS colours")
    red, green, blue = ImageColor.getrgb(text)[:3]
    return red, green, blue


def _max_side(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value, re.ASCII):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIDE:
        raise _refused("max_side", value, f"whole numbers of pixels from 1 to {MAX_SIDE}")
    return value


def _refused(field: str, value: Any, allowed: str) -> BadRequest:
    return BadRequest(f"'{field}' is {shown(value)}: allowed are {allowed}")
