"""What the demo tells while it works: one line per event, and on a terminal the seconds that pass between them."""

from __future__ import annotations

import sys
import time


class Progress:
    """Prints lines with the seconds since the start."""

    def __init__(self) -> None:
        """Counts from now."""
        self._started = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print(f"{self._clear()}{self._elapsed():7.1f} s  {text}", flush=True)

    def wait(self, text: str) -> None:
        """Show what is being waited for, until the next line; only on a terminal."""
        if self._terminal:
            print(f"{self._clear()}{self._elapsed():7.1f} s  {text} …", end="", flush=True)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _clear(self) -> str:
        return "\r\x1b[K" if self._terminal else ""
