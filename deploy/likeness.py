"""Whether what AWS describes is what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def holds(found: Any, wanted: Any) -> bool:
    """Whether AWS has what is wanted: it adds defaults, and gives lists in an order of its own."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        there = isinstance(found, list) and len(found) == len(wanted)
        return there and all(any(holds(entry, value) for entry in found) for value in wanted)
    return bool(found == wanted)
