from __future__ import annotations

import pytest

from multigpu_inference.engine.capacity import Capacity
from multigpu_inference.engine.replica import replica_command, replica_id

CAPACITY = Capacity(3, 4, 2, 16, 50, 25, 50, 104)
RING = [("cuda:0", "cuda:1"), ("cuda:1", "cuda:2"), ("cuda:2", "cuda:0")]


@pytest.fixture(autouse=True)
def _all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_replica_worker_is_told_who_it_is_and_what_it_has() -> None:
    command = replica_command(2, RING, CAPACITY)
    assert command.name == "replica-2"
    assert command.module == "multigpu_inference.engine.replica_worker"
    assert command.arguments == ("2", "3", "cuda:0,cuda:1", "16")


def test_a_replica_worker_sees_its_devices_only() -> None:
    assert [replica_command(slot, RING, CAPACITY).environ["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0,1", "1,2", "2,0"]


def test_torch_and_the_tools_number_gpus_alike() -> None:
    assert replica_command(0, RING, CAPACITY).environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_replica_worker_has_its_share_of_the_cores() -> None:
    environ = replica_command(0, RING, CAPACITY).environ
    assert {environ[f"{library}_NUM_THREADS"] for library in ("OMP", "MKL", "OPENBLAS")} == {"4"}


def test_a_replica_on_the_cpu_sees_no_gpu() -> None:
    command = replica_command(0, [("cpu:0", "cpu:1")], CAPACITY)
    assert command.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert command.arguments[2] == "cpu:0,cpu:1"


def test_a_replica_is_known_by_its_workers_name() -> None:
    assert replica_id(replica_command(11, RING * 4, CAPACITY).name) == "11"
