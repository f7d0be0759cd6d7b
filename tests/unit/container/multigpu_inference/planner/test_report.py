from __future__ import annotations

from multigpu_inference.config import Settings
from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.prediction import make_plan
from multigpu_inference.planner.profile import Cost, FunctionProfile
from multigpu_inference.planner.report import measured_lines, noise_lines, plan_lines, settings_lines
from multigpu_inference.planner.sample import Sample
from unit.container.multigpu_inference.planner.planned import chain, simulated_devices, stage

SAMPLE = Sample(b"abc", "image/png", "image/png", "sample_input()")
PROFILE = chain(
    stage(8.0, 9.0, device="cpu:0"),
    stage(12.0, device="cpu:1"),
    function=FunctionProfile(Cost(10.0, 0.5), process_bytes=1 << 20),
)


def test_what_was_measured_is_said_for_each_function_stage_and_batch() -> None:
    lines = list(measured_lines(PROFILE, SAMPLE, simulated_devices(2)))
    assert lines[0] == "measured with sample_input() (image/png, 3 bytes) on 2 devices of the CPU, 16 cores"
    cells = [line.split() for line in lines]
    assert ["input_fn", "pool", "10.0", "0.5", "1"] in cells
    assert ["stage", "1:", "Stage", "cpu:0,", "1", "thread", "1", "8.0", "0.0"] in cells
    assert ["2", "9.0", "0.0"] in cells


def test_planning_for_what_is_not_there_is_said_plainly() -> None:
    lines = list(measured_lines(PROFILE, SAMPLE, Machine(8, 8, 32, 1, 1, 2)))
    assert lines[0].endswith("on 1 GPU, 2 cores")
    assert lines[1] == "planned for 8 GPUs, 32 cores: taken to be like those that were measured"


def test_a_function_that_stays_in_the_replica_has_a_reason() -> None:
    profile = chain(stage(8.0), function=FunctionProfile(Cost(1.0), in_pool=False, because="it reads the global SCALE"))
    assert "output_fn runs in the replica worker: it reads the global SCALE" in measured_lines(
        profile, SAMPLE, simulated_devices(1)
    )


def test_the_recommended_and_the_default_are_marked_and_say_what_bounds_them() -> None:
    machine = simulated_devices(4)
    plan = make_plan(PROFILE, Settings.from_env({}), machine, "throughput")
    assert plan is not None
    lines = list(plan_lines(plan))
    (chosen,) = [line for line in lines if line.startswith("recommended")]
    assert f"{plan.recommended.requests_per_second:.1f}" in chosen
    assert "device cpu:" in chosen
    assert len([line for line in lines if line.startswith("defaults")]) == 1
    assert len(lines) < 12


def test_settings_are_those_that_are_not_the_default() -> None:
    assert settings_lines(Candidate(), {}) == []
    assert settings_lines(Candidate("same", 4, None, 6), {}) == [
        "MULTIGPU_PLACEMENT=same", "MULTIGPU_NUM_REPLICAS=4", "MULTIGPU_PREPROCESS_WORKERS=6",
    ]  # fmt: skip


def test_a_default_is_set_back_where_the_environment_says_something_else() -> None:
    assert settings_lines(Candidate(), {"MULTIGPU_NUM_REPLICAS": "3"}) == ["MULTIGPU_NUM_REPLICAS="]


def test_a_machine_that_was_not_quiet_is_said() -> None:
    assert list(noise_lines(0.1)) == []
    assert next(noise_lines(1.26)).startswith("other programs kept 1.3 cores busy")
