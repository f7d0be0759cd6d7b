from __future__ import annotations

import time

import pytest

from bench import recovery
from bench.answers import Answers
from bench.recovery import Recovery


class Server:
    """Refuses, or is slow, for so long; then it answers."""

    def __init__(self, bad_s: float, late_s: float = 0.0) -> None:
        self._until = time.monotonic() + bad_s
        self._late_s = late_s

    def send(self, body: bytes) -> tuple[int, bytes]:
        if time.monotonic() > self._until:
            return 200, b"right"
        time.sleep(self._late_s)
        return (200, b"right") if self._late_s else (503, b"{}")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("server", "least", "most"), [((0.0,), 0.0, 0.0), ((0.1,), 0.05, 0.2), ((0.1, 0.06), 0.1, 0.25)])
def test_it_ends_with_the_last_answer_that_was_none_or_late(
    server: tuple[float, ...], least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "WATCHED_S", 0.3)
    watch = Recovery(Server(*server), b"body", Answers([b"right"], exact=True), usual_ms=50.0)
    watch.start()
    assert least <= watch.seconds() <= most
