from __future__ import annotations

import dataclasses

from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.memory_need import MAIN, memory_need, too_large
from multigpu_inference.planner.profile import BatchCost, Cost, FunctionProfile, Profile, ReplicaProfile, StageProfile
from unit.container.multigpu_inference.planner.planned import GIB, deployed, gpus

CONTEXT, MODEL, PROCESS, POOL = 1, 10, 100, 1000


def weighed(device: str = "cuda:0") -> StageProfile:
    """Takes 2 bytes for a batch of one, 4 for two, 8 for four."""
    batches = {size: BatchCost(Cost(1.0), 2 * size) for size in (1, 2, 4)}
    return StageProfile("Stage", device, 16, True, batches, MODEL)


def profile_of(*stages: StageProfile) -> tuple[Profile, ReplicaProfile]:
    kinds = tuple(each.device.partition(":")[0] for each in stages)
    replica = ReplicaProfile(stages, True, 1, process_bytes=PROCESS, context_bytes=CONTEXT, device_bytes=GIB)
    function = FunctionProfile(Cost(1.0), process_bytes=POOL)
    return Profile(function, function, {(kinds, 1): replica}), replica


def need(candidate: Candidate, *stages: StageProfile) -> dict[str, int]:
    profile, replica = profile_of(*stages)
    return memory_need(deployed(profile, gpus(2), candidate), profile, replica)


def test_a_gpu_holds_the_stages_that_it_carries_and_a_context_for_each_process() -> None:
    found = need(Candidate("ring", 2, 2, 3), weighed(), weighed())
    assert found["cuda:0"] == found["cuda:1"] == 2 * CONTEXT + 2 * MODEL + 2 * 4
    same = need(Candidate("same", 2, 2, 3), weighed(), weighed())
    assert same["cuda:0"] == CONTEXT + 2 * MODEL + 2 * 4


def test_main_memory_holds_the_processes_and_the_spare_one() -> None:
    assert need(Candidate("ring", 2, 1, 3), weighed(), weighed())[MAIN] == 2 * PROCESS + 4 * POOL


def test_a_stage_on_the_cpu_takes_main_memory() -> None:
    on_cpu = dataclasses.replace(weighed("cpu"), model_bytes=0)
    found = need(Candidate("cpu,cuda:0", None, 4, 3), on_cpu, weighed())
    assert found[MAIN] == PROCESS + 8 + 4 * POOL
    assert found["cuda:0"] == CONTEXT + MODEL + 8


def test_larger_batches_than_were_measured_take_memory_in_proportion() -> None:
    assert need(Candidate("ring", 1, 16), weighed())["cuda:0"] == CONTEXT + MODEL + 32
    assert need(Candidate("ring", 1, 3), weighed())["cuda:0"] == CONTEXT + MODEL + 8  # as the next larger one


def test_what_is_too_large_is_said_with_both_sizes() -> None:
    _, replica = profile_of(weighed())
    assert too_large({"cuda:0": GIB // 2, MAIN: 63 * GIB}, gpus(1), replica) is None
    assert too_large({"cuda:0": 2 * GIB}, gpus(1), replica) == "cuda:0 would need 2.0 GiB of 0.9"
    assert too_large({MAIN: 65 * GIB}, gpus(1), replica) == "main memory would need 65.0 GiB of 64.0"
