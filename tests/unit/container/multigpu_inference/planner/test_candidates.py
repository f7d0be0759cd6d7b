from __future__ import annotations

import dataclasses

import pytest

from multigpu_inference.config import Settings
from multigpu_inference.engine.placement import parse_placement
from multigpu_inference.planner.candidates import (
    device_bound,
    enumerate_deployments,
    pool_workers_for,
    split_placement,
)
from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.profile import Cost, FunctionProfile, Profile
from unit.container.multigpu_inference.planner.planned import chain, deployed, gpus, plain, stage


def placements(profile: Profile, machine: Machine, **environ: str) -> set[str]:
    found = enumerate_deployments(profile, Settings.from_env(environ), machine)
    return {deployment.candidate.placement for deployment in found}


TWO = chain(stage(10.0), stage(30.0))


def test_the_engines_defaults_come_first() -> None:
    assert enumerate_deployments(TWO, Settings.from_env({}), gpus(4))[0].candidate == Candidate()


def test_ring_same_and_the_best_balanced_splits_are_looked_at() -> None:
    assert placements(TWO, gpus(4)) == {
        "ring",
        "same",
        "cuda:0,cuda:1;cuda:0,cuda:2;cuda:0,cuda:3",
        "cuda:0,cuda:2;cuda:1,cuda:3",
    }


def test_one_gpu_has_one_placement_and_one_stage_has_no_split() -> None:
    assert placements(TWO, gpus(1)) == {"ring"}
    assert placements(plain(stage(10.0)), gpus(4)) == {"ring"}


def test_no_deployment_is_looked_at_twice() -> None:
    found = enumerate_deployments(TWO, Settings.from_env({}), gpus(2))
    assert len({(each.devices, each.max_batch_size, each.capacity) for each in found}) == len(found)


def test_a_stage_that_was_measured_on_the_cpu_is_placed_there() -> None:
    light = dataclasses.replace(stage(20.0, device="cpu"), exclusive=False)
    both = {**TWO.replicas, **chain(light, stage(30.0)).replicas}
    found = placements(dataclasses.replace(TWO, replicas=both), gpus(2))
    assert "cpu,cuda:1;cpu,cuda:0" in found


def test_cpu_stages_without_devices_of_their_own_have_replicas_up_to_the_cores() -> None:
    profile = plain(stage(10.0, device="cpu:0", exclusive=False, cpu_ms=10.0))
    found = enumerate_deployments(profile, Settings.from_env({}), Machine(0, 1, 4, 1, 1, 4))
    assert {each.capacity.num_replicas for each in found} == {1, 2, 4}


def test_batch_sizes_go_up_to_what_a_stage_takes() -> None:
    found = enumerate_deployments(chain(stage(1.0, 2.0, 3.0), stage(1.0)), Settings.from_env({}), gpus(1))
    assert {each.max_batch_size for each in found} == {1, 2, 4, 8}  # 8 is the default


@pytest.mark.parametrize(
    ("counts", "placement"),
    [((1, 1), "cuda:0,cuda:1"), ((1, 2), "cuda:0,cuda:1;cuda:0,cuda:2"), ((2, 2), "cuda:0,cuda:2;cuda:1,cuda:3")],
)
def test_a_split_gives_each_stage_devices_of_its_own(counts: tuple[int, ...], placement: str) -> None:
    assert split_placement(counts, "cuda") == placement


@pytest.mark.parametrize("counts", [(2, 3), (3, 5), (1, 7), (2, 3, 3)])
def test_a_split_uses_every_device_of_a_stage_as_often_as_any_other(counts: tuple[int, ...]) -> None:
    replicas = parse_placement(split_placement(counts, "cuda"))
    for stage_number, count in enumerate(counts):
        used = [replica[stage_number] for replica in replicas]
        assert len(set(used)) == count
        assert max(map(used.count, used)) - min(map(used.count, used)) <= (0 if len(replicas) % count == 0 else 1)


def test_what_devices_allow_is_what_the_busiest_allows() -> None:
    assert device_bound(deployed(TWO, gpus(4), Candidate("ring", 4, 1)), next(iter(TWO.replicas.values()))) == 100
    split = Candidate("cuda:0,cuda:1;cuda:0,cuda:2;cuda:0,cuda:3", None, 1)
    assert device_bound(deployed(TWO, gpus(4), split), next(iter(TWO.replicas.values()))) == pytest.approx(100)


def test_pool_workers_are_enough_for_the_rate_and_no_more_than_the_cores_can_use() -> None:
    sleeping, computing = (chain(stage(1.0), function=FunctionProfile(Cost(10.0, cpu))) for cpu in (0.1, 10.0))
    assert pool_workers_for(100.0, sleeping, cores=2) == 3  # 2 are busy, and a third more
    assert pool_workers_for(1000.0, sleeping, cores=2) == 26
    assert pool_workers_for(1000.0, computing, cores=2) == 3
    assert pool_workers_for(1.0, sleeping, cores=2) == 2
    assert pool_workers_for(1.0, chain(stage(1.0), function=FunctionProfile(in_pool=False)), cores=2) is None
