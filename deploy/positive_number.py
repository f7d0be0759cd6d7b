"""A number above 0 on a command line."""

from __future__ import annotations

import argparse
import math


def positive_number(text: str) -> float:
    """Read it.

    Raises:
        ArgumentTypeError: where it is none, with what is allowed.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a number above 0")
    return value
