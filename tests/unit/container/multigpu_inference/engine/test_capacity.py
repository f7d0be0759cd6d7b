from __future__ import annotations

import os
from pathlib import Path

import pytest

from multigpu_inference.config import Settings
from multigpu_inference.engine.capacity import Capacity, available_cores, plan_capacity
from multigpu_inference.errors import SettingsError


def plan(num_gpus: int, cores: int, **own: str) -> Capacity:
    environ = {f"MULTIGPU_{name.upper()}": value for name, value in own.items()}
    return plan_capacity(Settings.from_env(environ).engine, num_gpus, cores)


# replicas, threads of each, pool workers, in flight on each, admitted, queue, front-end workers
@pytest.mark.parametrize(
    ("num_gpus", "cores", "expected"),
    [
        (0, 2, Capacity(1, 2, 2, 2, 6, 3, 6, 16)),
        (1, 4, Capacity(1, 4, 3, 16, 22, 11, 22, 48)),
        (4, 48, Capacity(4, 12, 44, 16, 152, 76, 152, 120)),
        (8, 192, Capacity(8, 24, 120, 16, 368, 128, 368, 120)),
    ],
    ids=["laptop", "1 GPU", "4 GPUs", "8 GPUs"],
)
def test_defaults(num_gpus: int, cores: int, expected: Capacity) -> None:
    assert plan(num_gpus, cores) == expected


@pytest.mark.parametrize(
    ("environ", "fetching"),
    [
        ({}, 30),  # of 120 front-end workers; as many again may wait for it
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "8"}, 2),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}, 1),
        ({"MULTIGPU_FRONT_END": "http"}, 76),
    ],
)
def test_those_that_fetch_leave_front_end_workers_to_others(environ: dict[str, str], fetching: int) -> None:
    settings = Settings.from_env(environ)
    assert plan_capacity(settings.engine, 4, 48, 1, settings.front_end).fetching == fetching


def test_a_replica_holds_two_batches_for_each_stage() -> None:
    engine = Settings.from_env({}).engine
    plans = [plan_capacity(engine, gpus, 8, stages) for gpus in (0, 4) for stages in (1, 2)]
    assert [plan.in_flight_per_replica for plan in plans] == [2, 4, 16, 32]
    assert plan(4, 8, max_batch_size="3").in_flight_per_replica == 6


def test_the_stages_of_a_replica_share_its_part_of_the_cores() -> None:
    engine = Settings.from_env({"MULTIGPU_NUM_REPLICAS": "2"}).engine
    assert [plan_capacity(engine, 0, 16, stages).threads_per_stage for stages in (1, 2, 4, 20)] == [8, 4, 2, 1]


def test_one_replica_for_each_gpu() -> None:
    assert [plan(count, 8).num_replicas for count in (0, 1, 2, 8)] == [1, 1, 2, 8]


def test_a_list_of_placements_says_how_many_replicas() -> None:
    assert plan(4, 8, placement="cuda:0,cuda:2;cuda:1,cuda:3").num_replicas == 2


def test_the_number_asked_for_comes_before_the_list() -> None:
    assert plan(4, 8, placement="cuda:0;cuda:1", num_replicas="6").num_replicas == 6


def test_a_placement_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(SettingsError, match="MULTIGPU_PLACEMENT='rings'"):
        plan(4, 8, placement="rings")


def test_the_pool_gets_the_cores_that_replicas_leave_and_two_at_least() -> None:
    assert [plan(4, cores).pool_workers for cores in (1, 4, 5, 6, 7, 12)] == [2, 2, 2, 2, 3, 8]


def test_what_is_asked_for_is_what_there_is() -> None:
    capacity = plan(4, 48, num_replicas="2", preprocess_workers="200", stage_threads="3", max_queue_size="5")
    assert (capacity.num_replicas, capacity.pool_workers, capacity.threads_per_stage) == (2, 200, 3)
    assert capacity.max_queue_size == 5


def test_nobody_may_have_to_wait() -> None:
    capacity = plan(0, 2, max_queue_size="0")
    assert capacity.max_queue_size == 0
    assert capacity.admitted == 6


def test_more_replicas_than_cores_have_a_thread_each() -> None:
    assert plan(0, 2, num_replicas="8").threads_per_stage == 1


@pytest.mark.parametrize("num_gpus", [0, 1, 4, 8, 16])
@pytest.mark.parametrize("cores", [1, 2, 8, 64, 192, 1000])
def test_there_are_never_more_front_end_workers_than_can_connect(num_gpus: int, cores: int) -> None:
    assert plan(num_gpus, cores).front_end_workers <= 120


@pytest.mark.parametrize("cores", [1, 2, 4, 8])
def test_front_end_workers_fill_the_queue_and_one_more_is_refused(cores: int) -> None:
    capacity = plan(1, cores)
    assert capacity.front_end_workers > capacity.admitted + capacity.max_queue_size


def test_what_is_admitted_keeps_every_worker_busy() -> None:
    capacity = plan(4, 48)
    assert capacity.admitted >= capacity.num_replicas * capacity.in_flight_per_replica + capacity.pool_workers


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("160000 100000\n", 2),
        ("50000 100000\n", 1),
        ("10000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("max 100000\n", 8),
        ("nonsense\n", 8),
        ("a b\n", 8),
        ("", 8),
    ],
)
def test_cores_are_bounded_by_the_containers_quota(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert available_cores(tmp_path) == cores


@pytest.mark.usefixtures("eight_cores")
def test_without_a_quota_cores_are_those_of_the_affinity(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 8


def test_there_is_at_least_one_core_here() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_a_replica_holds_as_much_more_as_its_stages_work_on_at_a_time() -> None:
    one, four = plan(4, 48, max_batch_size="2"), plan(4, 48, max_batch_size="2", streams_per_stage="4")
    assert (one.in_flight_per_replica, four.in_flight_per_replica) == (4, 16)
    assert four.admitted - one.admitted == 4 * 12
    assert (one.threads_per_stage, four.threads_per_stage) == (12, 3)  # they share the replica's cores


def test_960_requests_may_be_in_flight_on_one_replica() -> None:
    assert plan(1, 48, streams_per_stage="60").in_flight_per_replica == 960  # of batches of 8, on a GPU
    assert plan(0, 48, streams_per_stage="480").in_flight_per_replica == 960
