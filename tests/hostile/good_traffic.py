"""Good requests beside hostile ones: each is to be answered, and as quickly as without them."""

from __future__ import annotations

import statistics
import threading
import time

from hostile.hostile_bodies import PHOTO
from integration.endpoint import Endpoint


class GoodTraffic:
    """A client that asks for a matte, twenty times a second, for the length of the block."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> GoodTraffic:
        for _ in range(20):  # the first ones are slow, and would make a quiet time look busy
            self._endpoint.invoke(PHOTO, "image/png")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def p99_s(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[-1]

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            started = time.monotonic()
            answer = self._endpoint.invoke(PHOTO, "image/png")
            self.seconds.append(time.monotonic() - started)
            if answer.status_code != 200 or not answer.content.startswith(b"\x89PNG"):
                self.failed.append(answer.text[:200])
