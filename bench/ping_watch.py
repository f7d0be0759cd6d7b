"""Asks `/ping` again and again, from a thread and over a connection of its own, while something else loads the server."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.percentiles import percentile

_EVERY_S = 0.1
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Pings:
    """What came of it. Times in milliseconds, from when each was due: one that came late makes the next ones late.

    Attributes:
        count: How many were asked.
        not_200: Those that had another answer or none, counted by status or kind of error.
        p50_ms: Median of all.
        p99_ms: 99th percentile.
        max_ms: The slowest.
    """

    count: int
    not_200: dict[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float


class PingWatch:
    """Asks from `start` to `stop`."""

    def __init__(self, url: str, every_s: float = _EVERY_S) -> None:
        """Nothing is asked yet.

        Args:
            url: Any address of the server.
            every_s: How often a ping is due.
        """
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        self._every_s = every_s
        self._times_ms: list[float] = []
        self._not_200 = Counter[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> Pings:
        """Stop, and wait for the last answer."""
        self._stop.set()
        self._thread.join()
        self._connection.close()
        times = self._times_ms
        return Pings(
            len(times), dict(self._not_200), percentile(times, 50), percentile(times, 99), max(times, default=float("nan"))
        )

    def _ask_on(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            answer = self._ask()
            self._times_ms.append((time.monotonic() - due) * 1e3)
            if answer != "200":
                self._not_200[answer] += 1
            due += self._every_s

    def _ask(self) -> str:
        """The status of one ping, or the name of the error; a connection that broke is made anew with the next one."""
        try:
            self._connection.request("GET", "/ping")
            response = self._connection.getresponse()
            response.read()
            return str(response.status)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return type(error).__name__
