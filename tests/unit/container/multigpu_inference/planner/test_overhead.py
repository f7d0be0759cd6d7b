from __future__ import annotations

import pytest

from multigpu_inference.planner.engine_run import Measured
from multigpu_inference.planner.load import LoadResult
from multigpu_inference.planner.overhead import overhead_of, with_batches
from multigpu_inference.planner.profile import Cost, FunctionProfile, Overhead
from unit.container.multigpu_inference.planner.planned import chain, plain, stage


def measured(lone_ms: float, **cpu_ms: float) -> Measured:
    return Measured(lone_ms, LoadResult(1.0, [1.0], {}, 0.0), 8, cpu_ms, 0.0)


def test_what_remains_is_the_containers() -> None:
    profile = chain(stage(8.0, cpu_ms=0.2), stage(12.0, cpu_ms=0.3), function=FunctionProfile(Cost(10.0, 0.5)))
    replica = next(iter(profile.replicas.values()))
    overhead = overhead_of(measured(43.0, client=0.2, engine=0.4, pool=1.6, replica=1.0), profile, replica)
    assert overhead.hand_over_ms == pytest.approx(3.0)
    assert (overhead.client_cpu_ms, overhead.engine_cpu_ms) == (0.2, 0.4)
    assert overhead.pool_cpu_ms == pytest.approx(0.3)  # of each of two tasks
    assert overhead.replica_cpu_ms == pytest.approx(0.5)


def test_functions_that_run_in_the_replica_are_not_its_overhead() -> None:
    profile = plain(stage(8.0, cpu_ms=0.2), FunctionProfile(Cost(10.0, 0.5), in_pool=False))
    replica = next(iter(profile.replicas.values()))
    overhead = overhead_of(measured(30.0, replica=1.3), profile, replica)
    assert overhead.hand_over_ms == pytest.approx(2.0)
    assert overhead.replica_cpu_ms == pytest.approx(0.1)


def test_a_difference_that_is_noise_is_bounded() -> None:
    profile = plain(stage(500.0, cpu_ms=500.0))
    replica = next(iter(profile.replicas.values()))
    low, high = (overhead_of(measured(ms, replica=ms), profile, replica) for ms in (400.0, 900.0))
    assert 0 < low.hand_over_ms < high.hand_over_ms <= 15
    assert 0 < low.replica_cpu_ms < high.replica_cpu_ms <= 1.5


def test_what_batches_share_is_told_from_what_each_request_pays() -> None:
    single, loaded = Overhead(3.0, 0.1, 0.5, 0.4, 1.2), Overhead(9.0, 0.1, 0.4, 0.3, 0.6)
    found = with_batches(single, loaded, stages=2, mean_batch=4.0)
    assert found.batch_cpu_ms == pytest.approx(0.4)
    assert found.replica_cpu_ms == pytest.approx(0.4)  # 0.4 + 2 stages * 0.4 / 4 is the 0.6 that was seen
    assert (found.hand_over_ms, found.engine_cpu_ms, found.pool_cpu_ms) == (3.0, 0.4, 0.3)


def test_without_batches_under_load_there_is_nothing_to_tell_apart() -> None:
    found = with_batches(Overhead(replica_cpu_ms=1.2), Overhead(replica_cpu_ms=0.6), stages=2, mean_batch=1.0)
    assert (found.batch_cpu_ms, found.replica_cpu_ms) == (0.0, 0.6)
