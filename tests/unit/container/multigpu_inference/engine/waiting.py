"""What a thread is waiting in: tests look before they go on, instead of sleeping until it probably does."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any


def waits_in(function: Callable[..., Any], thread: threading.Thread | None) -> bool:
    """Whether a thread stands in a function of Python's or of ours."""
    frame = sys._current_frames().get((thread and thread.ident) or 0)
    while frame is not None:
        if frame.f_code is function.__code__:
            return True
        frame = frame.f_back
    return False
