from __future__ import annotations

import dataclasses

import pytest

from multigpu_inference.config import Settings
from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.prediction import Plan, Prediction, bound_by, make_plan, recommend
from multigpu_inference.planner.profile import Cost, FunctionProfile, Profile
from multigpu_inference.planner.simulation import Outcome
from unit.container.multigpu_inference.planner.planned import GIB, chain, deployed, gpus, simulated_devices, stage

PROFILE = chain(stage(10.0), stage(10.0))


def made(profile: Profile, machine: Machine, target: str = "throughput") -> Plan:
    plan = make_plan(profile, Settings.from_env({}), machine, target)
    assert plan is not None
    return plan


def prediction(rate: float, lone_ms: float, full_ms: float, candidate: Candidate = Candidate()) -> Prediction:  # noqa: B008
    return Prediction(deployed(PROFILE, gpus(2), candidate), Outcome(rate, full_ms, {"the CPU": 0.5}), lone_ms, {}, "")


# What is recommended


def test_the_most_requests_per_second_are_recommended() -> None:
    slow, fast = prediction(100, 40, 100), prediction(120, 45, 300)
    assert recommend([slow, fast], "throughput") is fast


def test_latency_decides_between_rates_that_are_nearly_equal() -> None:
    slow, quick = prediction(121, 45, 300), prediction(120, 40, 300)
    assert recommend([slow, quick], "throughput") is quick
    crowded, empty = prediction(121, 40, 300), prediction(120, 40, 100)
    assert recommend([crowded, empty], "throughput") is empty


def test_among_equals_the_fewest_settings_to_paste_are_recommended() -> None:
    changed, default = prediction(120, 40, 100, Candidate("same", 2)), prediction(120, 40, 101)
    assert recommend([changed, default], "throughput") is default


def test_for_latency_the_rate_decides_only_between_equals() -> None:
    slow, fast = prediction(100, 40, 100), prediction(120, 45, 300)
    assert recommend([slow, fast], "latency") is slow
    faster = prediction(110, 40.2, 100)
    assert recommend([slow, fast, faster], "latency") is faster


def test_among_equals_a_word_is_recommended_before_a_long_list() -> None:
    listed = prediction(120, 40, 100, Candidate("cuda:0,cuda:1;cuda:1,cuda:0"))
    word = prediction(120, 40, 101, Candidate("same", 2))
    assert recommend([listed, word], "throughput") is word


def test_a_pool_at_its_limit_is_not_recommended_where_a_larger_one_serves_as_many() -> None:
    tight, roomy = prediction(120, 40, 100), prediction(120, 40, 100, Candidate(preprocess_workers=9))
    tight.saturated.utilisation["the pool"] = 0.99
    roomy.saturated.utilisation["the pool"] = 0.8
    assert recommend([tight, roomy], "throughput") is roomy


# The whole plan


def test_a_ring_is_as_good_as_a_split_that_gives_the_slow_stage_more_devices() -> None:
    plan = made(chain(stage(10.0), stage(30.0)), gpus(4))
    assert plan.recommended.requests_per_second == pytest.approx(100, rel=0.03)
    assert plan.recommended.requests_per_second >= max(each.requests_per_second for each in plan.predictions) * 0.98


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_all_devices_are_used_whatever_their_number(count: int) -> None:
    profile = chain(stage(8.0, device="cpu:0"), stage(12.0, device="cpu:0"), function=FunctionProfile(Cost(10.0, 0.1)))
    plan = made(profile, simulated_devices(count))
    assert plan.recommended.requests_per_second == pytest.approx(50 * count, rel=0.03)
    assert plan.recommended.bound_by.startswith("device cpu:")
    assert plan.recommended.deployment.capacity.pool_workers >= 20 * 0.05 * count


def test_the_defaults_are_always_among_the_predictions() -> None:
    profile = chain(stage(2.0, device="cpu:0"), stage(18.0, device="cpu:0"))
    plan = made(profile, simulated_devices(4))
    assert plan.default is not None
    assert plan.default.deployment.candidate == Candidate()
    assert plan.not_simulated > 0


def test_a_light_stage_goes_to_idle_cores() -> None:
    light = dataclasses.replace(stage(6.0, device="cpu", cpu_ms=6.0), exclusive=False)
    gpu = chain(stage(3.0), stage(6.0))
    replicas = {**gpu.replicas, **chain(light, stage(6.0)).replicas}
    plan = made(dataclasses.replace(gpu, replicas=replicas), gpus(2))
    assert "cpu" in plan.recommended.deployment.candidate.placement
    assert plan.recommended.requests_per_second == pytest.approx(333, rel=0.03)
    crowded = made(dataclasses.replace(gpu, replicas=replicas), gpus(2, cores=1))
    assert "cpu" not in crowded.recommended.deployment.candidate.placement


def test_what_does_not_fit_into_memory_is_dropped_with_a_reason() -> None:
    large = dataclasses.replace(stage(10.0), model_bytes=10 * GIB)
    profile = chain(large, stage(10.0))
    ((key, replica),) = profile.replicas.items()
    small = dataclasses.replace(profile, replicas={key: dataclasses.replace(replica, device_bytes=16 * GIB)})
    plan = made(small, gpus(2))
    assert all(each.deployment.capacity.num_replicas <= 2 for each in plan.predictions)
    assert any("would need 20.0 GiB of 15.2" in reason for _, reason in plan.dropped)


def test_nothing_that_fits_is_no_plan() -> None:
    profile = chain(dataclasses.replace(stage(10.0), model_bytes=10 * GIB))
    ((key, replica),) = profile.replicas.items()
    tiny = dataclasses.replace(profile, replicas={key: dataclasses.replace(replica, device_bytes=GIB)})
    assert make_plan(tiny, Settings.from_env({}), gpus(2), "throughput") is None


# What it waits for


def test_the_bottleneck_is_named_with_its_stage() -> None:
    outcome = Outcome(1, 1, {"the CPU": 0.4, "device cuda:1": 0.99}, {"cuda:1": {2: 0.99}})
    assert bound_by(outcome) == "device cuda:1, stage 2"
    assert bound_by(Outcome(1, 1, {"the CPU": 0.97, "device cuda:1": 0.3})) == "the CPU"


def test_what_waits_for_a_core_is_not_the_bottleneck() -> None:
    assert bound_by(Outcome(1, 1, {"the CPU": 0.95, "the engine": 1.0})) == "the CPU"


def test_where_nothing_is_busy_the_requests_in_flight_are_too_few() -> None:
    assert bound_by(Outcome(1, 1, {"the CPU": 0.4})) == "the requests in flight (the CPU is 40% busy)"
