"""How soon a server answers as usual once an overload has ended: one request after the other, from that moment on."""

from __future__ import annotations

import threading
import time

from bench.answers import Answers
from bench.connections import Connection

# For so long it is asked; who has not recovered by then has not.
WATCHED_S = 5.0
_PAUSE_S = 0.02


class Recovery:
    """Asks from `start` on, for `WATCHED_S`."""

    def __init__(self, connection: Connection, body: bytes, answers: Answers, usual_ms: float) -> None:
        """Nothing is asked yet.

        Args:
            connection: Its own.
            body: The first of the bodies that `answers` knows.
            answers: What is right.
            usual_ms: What a right answer takes at most where nothing is wrong.
        """
        self._connection = connection
        self._body = body
        self._answers = answers
        self._usual_ms = usual_ms
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._seconds = 0.0

    def start(self) -> None:
        """The overload has ended."""
        self._thread.start()

    def seconds(self) -> float:
        """Until the last answer that was none, wrong or late; 0.0 where all were as usual. Waits until all is known."""
        self._thread.join()
        self._connection.close()
        return self._seconds

    def _ask_on(self) -> None:
        began = time.monotonic()
        while (asked := time.monotonic()) < began + WATCHED_S:
            right = self._ask()
            answered = time.monotonic()
            if not right or (answered - asked) * 1e3 > self._usual_ms:
                self._seconds = answered - began
            time.sleep(_PAUSE_S)

    def _ask(self) -> bool:
        try:
            status, body = self._connection.send(self._body)
        except Exception:  # whatever a client library raises is no answer
            return False
        return status == 200 and self._answers.right(0, body)
