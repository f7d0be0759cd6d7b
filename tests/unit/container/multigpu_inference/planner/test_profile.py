from __future__ import annotations

import pytest

from multigpu_inference.planner.profile import Cost, Profile, ReplicaProfile, interpolate

MEASURED = {1: Cost(10.0, 1.0), 2: Cost(12.0, 2.0), 8: Cost(24.0, 5.0)}


@pytest.mark.parametrize(
    ("batch", "cost"),
    [(1, Cost(10.0, 1.0)), (8, Cost(24.0, 5.0)), (4, Cost(16.0, 3.0)), (5, Cost(18.0, 3.5)), (16, Cost(40.0, 9.0))],
)
def test_a_batch_that_was_not_measured_lies_on_the_line_of_its_neighbours(batch: int, cost: Cost) -> None:
    found = interpolate(MEASURED, batch)
    assert (found.wall_ms, found.cpu_ms) == pytest.approx((cost.wall_ms, cost.cpu_ms))


def test_from_a_single_size_larger_ones_take_as_long_as_their_items_one_by_one() -> None:
    assert interpolate({1: Cost(3.0, 2.0)}, 4) == Cost(12.0, 8.0)


def test_a_replica_is_found_by_its_devices_and_the_nearest_count_of_threads() -> None:
    kinds: tuple[str, ...] = ("cpu",)
    replicas = {(kinds, threads): ReplicaProfile((), False, threads) for threads in (1, 2, 8)}
    profile = Profile(None, None, replicas)
    assert [profile.replica(("cpu",), threads) for threads in (1, 3, 6, 20)] == [
        replicas[("cpu",), 1], replicas[("cpu",), 2], replicas[("cpu",), 8], replicas[("cpu",), 8],
    ]  # fmt: skip
    assert profile.replica(("cuda",), 1) is None
