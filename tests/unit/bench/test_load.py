from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest

from bench.load import Ledger, LoadPlan, Turns, run


class FakeServer:
    """Stands in for a server: answers the body in capitals, or what it was told for a request's number."""

    def __init__(self, instead: dict[int, tuple[int, bytes] | Exception] | None = None) -> None:
        self._instead = instead or {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.in_flight = self.most_in_flight = self.closed = 0

    def send(self, body: bytes) -> tuple[int, bytes]:
        with self._lock:
            number = next(self._numbers)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            told = self._instead.get(number, (200, body.upper()))
            if isinstance(told, Exception):
                raise told
            return told
        finally:
            with self._lock:
                self.in_flight -= 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def plan(tmp_path: Path) -> LoadPlan:
    """Two bodies; four requests on each of two connections."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.input").write_bytes(name.encode())
        (tmp_path / f"{name}.expected").write_bytes(name.upper().encode())
    inputs = sorted(str(path) for path in tmp_path.glob("*.input"))
    expected = sorted(str(path) for path in tmp_path.glob("*.expected"))
    return LoadPlan("http://nowhere", "t", "t", inputs, expected, exact=True, concurrency=2, seconds=0.0, requests_each=4)


def test_every_right_answer_counts_once(plan: LoadPlan) -> None:
    server = FakeServer()
    outcome = run(plan, [server, server])
    assert len(outcome.latencies_ms) == 8
    assert outcome.errors == {}
    assert 1 <= server.most_in_flight <= 2
    assert server.closed == 2


def test_everything_else_is_counted_by_what_it_was(plan: LoadPlan) -> None:
    server = FakeServer({0: (503, b"full"), 1: (200, b"other"), 2: ConnectionResetError(), 3: (503, b"full")})
    outcome = run(plan, [server, server])
    assert outcome.errors == {"503": 2, "wrong answer": 1, "ConnectionResetError": 1}
    assert len(outcome.latencies_ms) == 4


def test_the_load_says_when_it_measures(plan: LoadPlan, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(plan, [FakeServer()])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == {"measuring": outcome.started}
    assert second["measured"] == pytest.approx(outcome.started + outcome.seconds)


def test_answers_outside_the_measured_time_count_for_nothing() -> None:
    ledger = Ledger(begins=10.0, ends=20.0)
    ledger.book(9.0, 9.9, None)  # warm-up
    ledger.book(9.0, 10.5, None)
    ledger.book(10.0, 10.25, "503")
    ledger.book(19.0, 20.0, "503")  # after the end
    assert ledger.latencies_ms == [pytest.approx(1500.0)]
    assert ledger.errors == {"503": 1}
    assert ledger.refusals_ms == [pytest.approx(250.0)]


def test_a_closed_loop_sends_when_it_is_asked() -> None:
    turns = Turns(begins=10.0, ends=20.0, rate=None, count=None)
    assert turns.take(12.5) == (0, 12.5)
    assert turns.take(12.5) == (1, 12.5)
    assert turns.take(20.0) is None


def test_an_open_loop_keeps_to_its_rate_however_late_it_is_asked() -> None:
    turns = Turns(begins=10.0, ends=11.0, rate=4.0, count=None)
    assert [turns.take(10.9) for _ in range(5)] == [(0, 10.0), (1, 10.25), (2, 10.5), (3, 10.75), None]


def test_so_many_requests_and_no_more() -> None:
    turns = Turns(begins=0.0, ends=float("inf"), rate=None, count=2)
    assert [turns.take(1.0) for _ in range(3)] == [(0, 1.0), (1, 1.0), None]
