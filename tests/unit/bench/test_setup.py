from __future__ import annotations

import pytest

from bench.bench_error import BenchError
from bench.measure import command_line
from bench.setup import make_setup
from bench.workload import WORKLOADS


def test_a_simulation_has_a_replica_and_its_load_for_each_device() -> None:
    setup = make_setup(WORKLOADS["sim-batched"], devices=8, front_end="engine")
    settings = setup.settings("/locks")
    assert setup.concurrency == (128,)
    assert settings["MULTIGPU_NUM_REPLICAS"] == "8"
    assert settings["MULTIGPU_MAX_BATCH_SIZE"] == "8"
    assert settings["MULTIGPU_PREPROCESS_WORKERS"] == "31"  # 1164 requests a second of 20 ms, and a third more
    assert settings["SIM_DEVICES"] == "8"
    assert int(settings["MULTIGPU_MAX_QUEUE_SIZE"]) >= 128


def test_other_workloads_have_two_replicas_and_the_containers_own_pool() -> None:
    settings = make_setup(WORKLOADS["tiny"], replicas=2, concurrency=(1, 16)).settings("/locks")
    assert settings["MULTIGPU_NUM_REPLICAS"] == "2"
    assert int(settings["MULTIGPU_MAX_QUEUE_SIZE"]) >= 16
    assert "MULTIGPU_PREPROCESS_WORKERS" not in settings
    assert "SIM_DEVICES" not in settings
    assert "MULTIGPU_TRACE" not in settings


def test_a_setting_given_by_hand_wins() -> None:
    setup = make_setup(WORKLOADS["sim"], trace=True, extra={"MULTIGPU_PREPROCESS_WORKERS": "3"})
    settings = setup.settings("/locks")
    assert settings["MULTIGPU_PREPROCESS_WORKERS"] == "3"
    assert settings["MULTIGPU_TRACE"] == "1"


@pytest.mark.parametrize(
    ("workload", "arguments", "message"),
    [
        ("tiny", {"front_end": "stock"}, "only the workload noop"),
        ("tiny", {"devices": 2}, "say --replicas"),
        ("noop", {"front_end": "nginx"}, "allowed are mms, http, engine, stock"),
        ("tiny", {"body_bytes": 5}, "tiny needs bodies that it understands"),
        ("echo", {"front_end": "stock"}, "only the workload noop"),
    ],
)
def test_what_does_not_go_together_is_refused(workload: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        make_setup(WORKLOADS[workload], **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("front_end", "started"), [("mms", "mms"), ("http", "http"), ("engine", "mms"), ("stock", "mms")])
def test_the_container_is_told_its_front_end(front_end: str, started: str) -> None:
    settings = make_setup(WORKLOADS["noop"], front_end=front_end).settings("/run")
    assert settings["MULTIGPU_FRONT_END"] == started


def test_bodies_may_have_another_length() -> None:
    setup = make_setup(WORKLOADS["noop"], body_bytes=70_000)
    bodies = setup.workload.inputs()
    assert {len(body) for body in bodies} == {70_000}
    assert len(set(bodies)) == len(bodies) > 1
    assert "--body-bytes 70000" in command_line(setup, 8)


def test_a_workload_that_holds_requests_is_told_by_which_file() -> None:
    assert make_setup(WORKLOADS["hold"]).settings("/run")["HOLD_WHILE"] == "/run/hold"
    assert "HOLD_WHILE" not in make_setup(WORKLOADS["noop"]).settings("/run")


def test_a_result_says_how_to_measure_it_again() -> None:
    setup = make_setup(WORKLOADS["sim"], devices=4, repeat=3, seconds=5, extra={"MULTIGPU_MAX_BATCH_DELAY_MS": "2"})
    assert command_line(setup, 16) == (
        "python -m bench run sim --front-end mms --devices 4 --replicas 4 --concurrency 16 --seconds 5 --repeat 3 "
        "--set MULTIGPU_MAX_BATCH_DELAY_MS=2"
    )
