"""An exception in one line, for the log and for who starts the container."""

from __future__ import annotations

import os

from multigpu_inference import credentials

_LONGEST_TEXT = 400  # characters of an exception's text


def one_line(error: BaseException) -> str:
    """An exception's class and its text, its lines joined: what is missing often stands in the second."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …"
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + credentials.hint(error, os.environ)
