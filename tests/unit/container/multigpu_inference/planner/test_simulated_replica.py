from __future__ import annotations

from multigpu_inference.planner.clock import Clock, Resource
from multigpu_inference.planner.profile import Cost
from multigpu_inference.planner.simulated_cores import SimulatedCores
from multigpu_inference.planner.simulated_replica import SimulatedReplica, SimulatedStage
from unit.container.multigpu_inference.planner.planned import stage


def test_a_stage_gets_two_full_batches_ahead_and_the_one_before_it_waits() -> None:
    clock = Clock()
    stages = [
        SimulatedStage(stage(1.0, device="cpu:0"), 1, 1, "cpu:0"),
        SimulatedStage(stage(100.0, device="cpu:1"), 2, 1, "cpu:1"),
    ]
    devices = {"cpu:0": Resource(clock), "cpu:1": Resource(clock)}
    replica = SimulatedReplica(clock, SimulatedCores(clock, 4), devices, stages, 10, pipelined=True)
    for _ in range(10):
        clock.start(replica.serve(Cost()))
    while clock.now < 50 and clock.step():
        pass
    assert len(stages[1].waiting) == 2
    assert len(stages[0].waiting) == 10 - 1 - 2  # one is with the second stage


def test_work_is_issued_to_a_gpu_one_batch_ahead_of_the_one_that_it_works_on() -> None:
    clock = Clock()
    only = SimulatedStage(stage(100.0), 1, 1, "cuda:0")
    replica = SimulatedReplica(clock, SimulatedCores(clock, 4), {"cuda:0": Resource(clock)}, [only], 10, pipelined=True)
    for _ in range(10):
        clock.start(replica.serve(Cost()))
    while clock.now < 50 and clock.step():
        pass
    assert only.batches == [1, 1]
    assert len(only.waiting) == 8
