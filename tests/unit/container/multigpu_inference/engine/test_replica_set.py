from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from multigpu_inference.engine.placement import Devices
from multigpu_inference.engine.replica_set import ReplicaSet, visible_placement
from multigpu_inference.engine.scheduler import RoundRobin
from multigpu_inference.errors import SettingsError


class Signing:
    """A stage that adds the name of its device."""

    max_batch_size = 1

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self, items: Sequence[str]) -> Sequence[str]:
        return [f"{item}>{self.device}" for item in items]


def load_stages(devices: Devices) -> list[Signing]:
    return [Signing(device) for device in devices]


@pytest.fixture(autouse=True)
def _four_cpu_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    monkeypatch.setenv("MULTIGPU_NUM_REPLICAS", "4")
    monkeypatch.delenv("MULTIGPU_PLACEMENT", raising=False)


def test_replicas_are_placed_as_in_the_container() -> None:
    model = ReplicaSet.load(load_stages, 2)
    assert [replica.devices for replica in model.replicas] == [
        ("cpu:0", "cpu:1"),
        ("cpu:1", "cpu:2"),
        ("cpu:2", "cpu:3"),
        ("cpu:3", "cpu:0"),
    ]


def test_calls_take_turns() -> None:
    model = ReplicaSet.load(load_stages, 2)
    assert [model("x") for _ in range(5)] == [
        "x>cpu:0>cpu:1",
        "x>cpu:1>cpu:2",
        "x>cpu:2>cpu:3",
        "x>cpu:3>cpu:0",
        "x>cpu:0>cpu:1",
    ]


class Alone(RoundRobin):
    """Fails where two threads take a turn at once, and gives them every chance to."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._inside = threading.Lock()

    def take(self, free: Callable[[int], bool] = lambda place: True) -> int | None:
        assert self._inside.acquire(blocking=False)
        time.sleep(0)
        turn = super().take(free)
        self._inside.release()
        return turn


def test_calls_from_many_threads_are_spread_evenly() -> None:
    model = ReplicaSet.load(load_stages, 1)
    model._turns = Alone(4)
    together = threading.Barrier(8, timeout=10)

    def call_often(_: int) -> list[str]:
        together.wait()
        return [model("x") for _ in range(100)]

    with ThreadPoolExecutor(8) as threads:
        results = [result for thread in threads.map(call_often, range(8)) for result in thread]
    assert Counter(results) == {f"x>cpu:{i}": 200 for i in range(4)}


def test_given_its_devices_it_is_one_replica() -> None:
    model = ReplicaSet.load(load_stages, 2, devices=("cpu", "cpu"))
    assert [replica.devices for replica in model.replicas] == [("cpu", "cpu")]


@pytest.mark.parametrize(
    ("devices", "setting", "expected"),
    [
        (("cpu", "cpu"), None, [1, 1]),
        (("cpu", "cpu"), "4", [4, 4]),
        (("cpu", "cpu"), "32", [16, 16]),
        (("cuda:0", "cuda:1"), None, [8, 8]),
        (("cuda:0", "cuda:1"), "2", [2, 2]),
        (("cuda:0", "cpu"), None, [8, 8]),
    ],
)
def test_batches_are_as_large_as_the_settings_and_the_stages_allow(
    devices: Devices, setting: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Signing, "max_batch_size", 16)
    if setting is None:
        monkeypatch.delenv("MULTIGPU_MAX_BATCH_SIZE", raising=False)
    else:
        monkeypatch.setenv("MULTIGPU_MAX_BATCH_SIZE", setting)
    (pipeline,) = ReplicaSet.load(load_stages, 2, devices).replicas
    assert pipeline._limits == expected


def test_the_delay_of_a_batch_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_MAX_BATCH_DELAY_MS", "20")
    assert ReplicaSet.load(load_stages, 1).replicas[0]._max_delay_s == 0.02


def test_its_stages_are_those_of_a_replica() -> None:
    assert [stage.device for stage in ReplicaSet.load(load_stages, 2).stages] == ["cpu:0", "cpu:1"]


def test_the_placement_is_a_setting_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_PLACEMENT", "same")
    assert visible_placement(2) == tuple((f"cpu:{i}",) * 2 for i in range(4))


def test_by_default_the_cpu_has_one_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIGPU_NUM_REPLICAS")
    assert visible_placement(2) == (("cpu:0", "cpu:1"),)


def test_every_visible_gpu_has_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "auto")
    monkeypatch.delenv("MULTIGPU_NUM_REPLICAS")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert visible_placement(2) == (("cuda:0", "cuda:1"), ("cuda:1", "cuda:0"))


def test_gpus_that_were_asked_for_and_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_PLACEMENT", "cuda:0,cuda:1")
    with pytest.raises(SettingsError, match="there is no cuda:0"):
        visible_placement(2)
