"""Figures first, then one real container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import measure as measuring
from bench.bench_error import BenchError
from bench.front_end_memory import (
    FrontEndMemory,
    arenas_mib,
    by_role_mib,
    front_end_memory_table,
    front_end_mib,
    measure_front_end_memory,
    wait_settled,
)
from bench.processes import Usage
from bench.setup import make_setup
from bench.workload import WORKLOADS


def found(**fields: Any) -> FrontEndMemory:
    given: dict[str, Any] = {
        "front_end": "mms", "in_flight": 128, "body_bytes": 5_000_000, "held": 128, "errors": {}, "started_mib": 400.0,
        "rest_mib": 500.0, "peak_mib": 2000.0, "by_role_mib": {}, "arenas_mib": 572.2, "bodies_in_arenas": 120, "settled": True,
    }  # fmt: skip
    return FrontEndMemory(**{**given, **fields})


class Clock:
    """A clock that only sleeping moves, and a figure that grows with it until it stops."""

    def __init__(self, mib_per_s: float, until_s: float) -> None:
        self.now_s, self._mib_per_s, self._until_s = 0.0, mib_per_s, until_s

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def figure(self) -> float:
        return self._mib_per_s * min(self.now_s, self._until_s)


def test_what_counts_is_the_front_ends_and_is_no_arena() -> None:
    pss = {"java": 700.0, "front-end workers": 400.0, "launcher": 40.0, "engine": 20.0, "pool": 500.0}
    seen = Usage({}, pss, {"front-end workers": 300.0, "pool": 290.0}, 0.0)
    assert by_role_mib(seen) == {"java": 700.0, "front-end workers": 100.0, "launcher": 40.0}
    assert front_end_mib(seen) == 840.0
    assert arenas_mib(seen) == 590.0
    assert front_end_mib(Usage({}, {"front end": 50.0, "engine": 20.0}, {"front end": 20.0}, 0.0)) == 30.0


def test_it_is_settled_when_nothing_has_grown_for_a_while() -> None:
    clock = Clock(mib_per_s=100.0, until_s=5.0)
    assert wait_settled(clock.figure, settled_s=3.0, limit_s=60.0, clock=clock, sleep=clock.sleep)
    assert 8.0 <= clock.now_s <= 9.0


def test_what_grows_on_is_not_settled_at_the_limit() -> None:
    clock = Clock(mib_per_s=100.0, until_s=1e9)
    assert not wait_settled(clock.figure, settled_s=3.0, limit_s=20.0, clock=clock, sleep=clock.sleep)
    assert 20.0 <= clock.now_s <= 21.0


def test_the_table_has_both_front_ends_and_the_share() -> None:
    http = found(front_end="http", peak_mib=100.0, settled=False, share_of_mms=0.05, mms=found().as_json())
    lines = front_end_memory_table(http).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["mms", "http"]
    assert "128, not settled" in lines[3]
    assert lines[-1] == "share of multi-model-server's: 0.050"
    assert "share" not in front_end_memory_table(found())


@pytest.mark.parametrize(("workload", "front_end"), [("tiny", "mms"), ("hold", "engine")])
def test_only_what_can_be_held_through_a_front_end_is_measured(workload: str, front_end: str) -> None:
    with pytest.raises(BenchError, match="for the workload hold, through mms or http"):
        measure_front_end_memory(make_setup(WORKLOADS[workload], front_end=front_end))


@pytest.mark.slow
def test_all_requests_are_held_at_the_same_moment_and_answered_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LOGS", tmp_path)
    setup = make_setup(WORKLOADS["hold"], front_end="http", replicas=1, concurrency=(6,), body_bytes=2_000_000, limit=False)
    memory = measure_front_end_memory(setup)
    assert memory.held == 6
    assert memory.errors == {}
    assert memory.settled
    assert memory.mms is None  # not asked for
    assert memory.share_of_mms is None
    assert memory.by_role_mib.keys() == {"front end"}
    assert 0 < memory.started_mib <= memory.peak_mib
    assert memory.arenas_mib >= 6 * 2e6 / (1 << 20)  # and those of the first requests that are not in use now
    assert memory.bodies_in_arenas == 6
