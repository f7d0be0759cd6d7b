from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.profile import BatchCost, Cost, FunctionProfile, Overhead, Profile, ReplicaProfile, StageProfile
from multigpu_inference.planner.simulation import Outcome, simulate
from unit.container.multigpu_inference.planner.planned import (
    NO_OVERHEAD,
    chain,
    deployed,
    gpus,
    plain,
    simulated_devices,
    stage,
)

TINY = pytest.approx


def run(profile: Profile, machine: Machine, candidate: Candidate, clients: int | None = None) -> Outcome:
    deployment = deployed(profile, machine, candidate)
    replica = next(iter(profile.replicas.values()))
    return simulate(deployment, profile, replica, machine.cores, clients or deployment.in_flight)


def on(make: Callable[[int], Machine]) -> str:
    return "cuda:0" if make(1).gpus else "cpu:0"


@pytest.mark.parametrize("make", [gpus, simulated_devices])
@pytest.mark.parametrize("placement", ["ring", "same"])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_devices_that_carry_one_stage_of_each_kind_are_all_busy(
    make: Callable[[int], Machine], placement: str, count: int
) -> None:
    profile = chain(stage(8.0, device=on(make)), stage(12.0, device=on(make)))
    outcome = run(profile, make(count), Candidate(placement, count, 1, 8))
    assert outcome.requests_per_second == TINY(count * 50, rel=0.02)
    assert min(busy for name, busy in outcome.utilisation.items() if name.startswith("device")) > 0.98


def test_a_request_that_is_alone_takes_the_sum_of_all_that_is_on_its_way() -> None:
    overhead = Overhead(5.0, 0.1, 0.2, 0.1, 0.3)
    profile = chain(stage(8.0), stage(12.0), overhead=overhead, function=FunctionProfile(Cost(10.0, 2.0)))
    assert run(profile, gpus(2), Candidate(), clients=1).latency_ms == TINY(10 + 8 + 12 + 10 + 5, rel=0.01)


def test_one_device_for_each_stage_is_bound_by_the_slower_stage() -> None:
    outcome = run(chain(stage(5.0), stage(20.0)), gpus(2), Candidate("cuda:0,cuda:1", None, 1))
    assert outcome.requests_per_second == TINY(50, rel=0.02)
    assert outcome.device_stages["cuda:1"][2] == TINY(1.0, abs=0.02)
    assert outcome.device_stages["cuda:0"][1] == TINY(0.25, abs=0.02)


def test_a_slower_stage_with_more_devices_is_no_bottleneck_any_more() -> None:
    split = Candidate("cuda:0,cuda:1;cuda:0,cuda:2;cuda:0,cuda:3", None, 1)
    assert run(chain(stage(5.0), stage(15.0)), gpus(4), split).requests_per_second == TINY(200, rel=0.03)


def test_full_batches_form_under_load_and_none_for_a_request_that_is_alone() -> None:
    profile = chain(stage(10.0, 11.0, 12.0, 14.0, device="cpu:0"))
    full, alone = (run(profile, simulated_devices(1), Candidate("ring", 1, 8, 8), clients) for clients in (None, 1))
    assert full.batch_sizes[0] > 7.5
    assert full.requests_per_second == TINY(8 / 0.014, rel=0.05)
    assert alone.batch_sizes == (1.0,)


def test_the_setting_bounds_batches() -> None:
    profile = chain(stage(10.0, 11.0, 12.0, 14.0, device="cpu:0"))
    outcome = run(profile, simulated_devices(1), Candidate("ring", 1, 2, 8))
    assert outcome.requests_per_second == TINY(2 / 0.011, rel=0.05)


def test_too_few_pool_workers_are_what_everything_waits_for() -> None:
    profile = chain(stage(1.0), function=FunctionProfile(Cost(10.0)))
    outcome = run(profile, gpus(4), Candidate("ring", 4, 8, 3))
    assert outcome.requests_per_second == TINY(3 / 0.020, rel=0.02)
    assert outcome.utilisation["the pool"] > 0.98


def test_functions_that_compute_are_bound_by_the_cores_however_many_workers_there_are() -> None:
    profile = chain(stage(1.0), function=FunctionProfile(Cost(10.0, 10.0)))
    outcome = run(profile, gpus(4, cores=4), Candidate("ring", 4, 8, 16))
    assert outcome.requests_per_second == TINY(4 / 0.020, rel=0.02)
    assert outcome.utilisation["the CPU"] > 0.98


def test_a_stage_on_several_threads_takes_as_many_cores() -> None:
    profile = chain(stage(10.0, device="cpu:0", exclusive=False, cpu_ms=20.0))
    cores = 2
    one, two = (run(profile, Machine(0, 1, cores, 1, 1, cores), Candidate("ring", replicas, 1, 2)) for replicas in (1, 2))
    assert one.requests_per_second == TINY(100, rel=0.03)
    assert two.requests_per_second == TINY(100, rel=0.03)  # there is no third core


def test_stages_of_the_cpu_without_a_device_of_their_own_share_only_the_cores() -> None:
    profile = chain(stage(10.0, device="cpu:0", exclusive=False, cpu_ms=10.0))
    outcome = run(profile, Machine(0, 1, 4, 1, 1, 4), Candidate("ring", 4, 1, 4))
    assert outcome.requests_per_second == TINY(400, rel=0.05)


def test_a_model_without_stages_takes_one_request_at_a_time_and_its_functions_with_it() -> None:
    here = FunctionProfile(Cost(5.0), in_pool=False)
    outcome = run(plain(stage(10.0), here), gpus(1), Candidate())
    assert outcome.requests_per_second == TINY(1 / 0.020, rel=0.02)
    two = run(plain(stage(10.0), here), gpus(1), Candidate("ring", 2))  # one preprocesses while the other has the GPU
    assert two.requests_per_second == TINY(1 / 0.010, rel=0.05)


def test_the_interpreter_that_issues_work_bounds_a_replica() -> None:
    profile = chain(stage(2.0, cpu_ms=5.0), stage(2.0, cpu_ms=5.0))
    outcome = run(profile, gpus(2), Candidate("cuda:0,cuda:1", None, 1))
    assert outcome.requests_per_second == TINY(100, rel=0.03)
    assert outcome.utilisation["the process of replica 0"] > 0.98


def test_a_device_of_the_cpu_is_numbered_on_beyond_those_that_are_there() -> None:
    profile = chain(stage(8.0, device="cpu:0"), stage(12.0, device="cpu:0"))
    outcome = run(profile, simulated_devices(1), Candidate("ring", 2, 1, 8))
    assert outcome.requests_per_second == TINY(50, rel=0.02)


def test_items_per_request_are_as_many_passes() -> None:
    many = dataclasses.replace(stage(10.0), items_per_request=3)
    profile = Profile(None, None, {(("cuda",), 1): ReplicaProfile((many,), True, 1)}, overhead=NO_OVERHEAD)
    assert run(profile, gpus(1), Candidate("ring", 1, 1)).requests_per_second == TINY(1 / 0.030, rel=0.02)


def test_the_same_deployment_always_gives_the_same_figures() -> None:
    profile = chain(stage(7.0, 9.0, 13.0), StageProfile("B", "cuda:0", 4, True, {1: BatchCost(Cost(11.0, 0.5))}))
    first, second = (run(profile, gpus(3), Candidate("ring", 5, 4, 7)) for _ in range(2))
    assert first == second


def test_what_each_batch_costs_the_cpu_is_shared_by_its_items() -> None:
    profile = chain(stage(10.0, 10.0, 10.0, 10.0, device="cpu:0"), overhead=Overhead(0.0, 0.0, 0.0, 0.0, 0.0, 4.0))
    rates = [
        run(profile, simulated_devices(8, cores=1), Candidate("ring", 8, batch, 16)).requests_per_second for batch in (1, 8)
    ]
    assert rates[0] == TINY(250, rel=0.03)  # one core, 4 ms for each
    assert rates[1] > 4 * rates[0]
