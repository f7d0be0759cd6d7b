"""A client's value in a line for the client: short, whatever was sent. Pure."""

from __future__ import annotations

import reprlib
from typing import Any

_LONGEST = 60  # characters


def shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long; never the work of writing all of it."""
    text = repr(value[: _LONGEST + 1]) if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
