"""A real container that gets more than it can do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench import measure as measuring
from bench import recovery
from bench.overload import OVERLOAD_TITLES, measure_overload, overload_line
from bench.setup import make_setup
from bench.simulation import Simulation
from bench.workload import WORKLOADS

SLOW = Simulation(preprocess_ms=1.0, stage_1_ms=20.0, stage_2_ms=20.0, postprocess_ms=1.0)


@pytest.mark.slow
def test_an_overload_is_offered_and_refused_and_pings_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LOGS", tmp_path)
    monkeypatch.setattr(recovery, "WATCHED_S", 0.5)
    workload = dataclasses.replace(WORKLOADS["sim"], simulation=SLOW)
    setup = make_setup(workload, front_end="http", devices=1, concurrency=(4,), seconds=1.2, warmup_s=0.4)
    found = measure_overload(setup)
    assert 8 < found.capacity_per_second < 26  # 40 ms of one device each
    assert found.rate == pytest.approx(5 * found.capacity_per_second, rel=0.5)  # of the loop before, that is of both
    assert found.offered_per_second > 2 * found.capacity_per_second
    assert found.errors == {}
    assert found.goodput_share == pytest.approx(found.requests_per_second / found.capacity_per_second)
    assert found.goodput_share > 0.5
    assert 0 < found.refused_p50_ms <= found.refused_p99_ms
    assert found.accepted_p50_ms > found.refused_p50_ms
    assert found.accepted_p99_ratio == pytest.approx(found.accepted_p99_ms / found.capacity_p99_ms)
    assert 0 <= found.recovered_s < 5
    assert found.cpu_cores["client"] > 0
    assert found.pings >= 10
    assert found.not_200 == 0
    assert 0 < found.ping_p50_ms <= found.ping_p99_ms <= found.ping_max_ms
    assert found.command.endswith("--ping")
    assert len(overload_line(found.as_json())) == len(OVERLOAD_TITLES)
