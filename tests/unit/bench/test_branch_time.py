from __future__ import annotations

import pytest

from bench.bench_error import BenchError
from bench.branch_time import measure_branches
from bench.setup import make_setup
from bench.workload import find


def test_branches_take_as_long_as_the_slowest_and_not_as_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.branch_time._CALLS", 2)
    found = measure_branches(make_setup(find("sim-branches")))
    assert list(found.alone_ms) == ["matte", "faces", "colours"]
    assert found.alone_ms["matte"] >= 40
    assert found.of_slowest < 1.6  # 1.1 is the goal on a quiet machine; one after another it is 2.4
    assert found.of_sum < 0.7


def test_a_workload_without_branches_is_refused() -> None:
    with pytest.raises(BenchError, match="noop has no branches"):
        measure_branches(make_setup(find("noop")))
