"""How long a group of workers may have fewer than it must: after that nobody waits for them any more, the container leaves.

A replacement is back in its load time. So what is too long is measured by the longest load at the start, and the same limit is
set to each replacement's start: a container that cannot bring them back says so soon, and is replaced as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LOADS, _BESIDE_S = 3.0, 10.0
_PAUSES = 1 / 3  # of the recovery limit: a pause of ours must not be what makes it too long


def recovery_limit_s(longest_load_s: float) -> float:
    """How long a replacement may take to be ready, in seconds, where at the start the slowest took so long.

    Three times that, because others load beside it and caches are cold; and ten seconds for a short one on a busy machine.
    """
    return _LOADS * longest_load_s + _BESIDE_S


def pause_limit_s(limit_s: float) -> float:
    """How long a start may be put off while fewer live than must, in seconds, where the replacement may take `limit_s`."""
    return _PAUSES * limit_s


class Minimum:
    """Watches that enough live."""

    def __init__(self, at_least: int, lost: Callable[[], object]) -> None:
        """Watch nothing yet.

        Args:
            at_least: How many must live.
            lost: Called once fewer have lived for too long.
        """
        self._at_least = at_least
        self._lost = lost
        self._timer: asyncio.TimerHandle | None = None

    def lives(self, count: int, limit_s: float) -> None:
        """So many live now; where that is too few, it may be so for `limit_s` from when it began."""
        if count >= self._at_least:
            self.stop()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(limit_s, self._lost)

    def stop(self) -> None:
        """Watch no longer, until the next count."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
