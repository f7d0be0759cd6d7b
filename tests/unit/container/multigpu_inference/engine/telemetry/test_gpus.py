from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from multigpu_inference.engine.telemetry.gpus import GpuReading, Gpus, visible_gpus
from support import wait_until


class Driver:
    """Stands in for pynvml: three GPUs, and a MIG instance that tells less."""

    NVML_TEMPERATURE_GPU = 0
    UUIDS = ("GPU-aaaa-0", "GPU-bbbb-1", "GPU-bbcc-2", "MIG-dddd-3")

    def __init__(self, *, in_bytes: bool = False) -> None:
        self.in_bytes = in_bytes
        self.lost: set[int] = set()
        self.asked = 0
        self.hangs = threading.Event()
        self.hangs.set()
        self.shut_down = threading.Event()

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        self.shut_down.set()

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= 3:
            raise RuntimeError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return self.UUIDS.index(uuid)

    def nvmlDeviceGetUUID(self, handle: int) -> Any:
        return self.UUIDS[handle].encode() if self.in_bytes else self.UUIDS[handle]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self.asked += 1
        self.hangs.wait()
        if handle == 3 or handle in self.lost:
            raise RuntimeError("Not Supported")
        return SimpleNamespace(gpu=10 * handle + 5, memory=0)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=handle << 30, total=80 << 30, free=0)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 40 + handle

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 100_500


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr("multigpu_inference.engine.telemetry.gpus._READ_EVERY_S", 0.01)
    return driver


@pytest.fixture
def started() -> Iterator[Any]:
    all_of_them: list[Gpus] = []

    def start(*devices: str, environ: Mapping[str, str] | None = None) -> Gpus:
        all_of_them.append(Gpus(devices, environ or {}))
        all_of_them[-1].start()
        return all_of_them[-1]

    yield start
    for gpus in all_of_them:
        gpus.stop()


def readings(gpus: Gpus) -> tuple[GpuReading, ...]:
    return wait_until(lambda: gpus.readings, 5)


def test_a_gpu_is_read(driver: Driver, started: Any) -> None:
    assert readings(started("cuda:1")) == (GpuReading("cuda:1", "GPU-bbbb-1", 0.15, 1 << 30, 80 << 30, 41, 100.5),)


def test_devices_of_the_cpu_are_left_out(driver: Driver, started: Any) -> None:
    assert [gpu.device for gpu in readings(started("cpu:0", "cuda:0"))] == ["cuda:0"]


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, ["GPU-aaaa-0", "GPU-bbbb-1"]),
        ("", ["GPU-aaaa-0", "GPU-bbbb-1"]),
        ("2,0", ["GPU-bbcc-2", "GPU-aaaa-0"]),
        ("GPU-bbcc-2, GPU-aaaa-0", ["GPU-bbcc-2", "GPU-aaaa-0"]),
        ("GPU-bbc,1", ["GPU-bbcc-2", "GPU-bbbb-1"]),
        ("MIG-dddd-3,GPU-a", ["MIG-dddd-3", "GPU-aaaa-0"]),
    ],
    ids=["all", "empty", "numbers", "names", "beginning of a name", "instance"],
)
def test_our_numbers_are_those_of_the_visible_gpus(driver: Driver, started: Any, visible: str | None, uuids: list[str]) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.uuid for gpu in readings(started("cuda:0", "cuda:1", environ=environ))] == uuids


def test_behind_a_number_that_is_none_nothing_is_visible() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1,-1,0"}) == ("1",)


def test_names_as_bytes_are_names(driver: Driver, started: Any) -> None:
    driver.in_bytes = True
    assert readings(started("cuda:0", environ={"CUDA_VISIBLE_DEVICES": "GPU-bbcc"}))[0].uuid == "GPU-bbcc-2"


def test_what_a_gpu_does_not_tell_is_none(driver: Driver, started: Any) -> None:
    (gpu,) = readings(started("cuda:0", environ={"CUDA_VISIBLE_DEVICES": "MIG-dddd-3"}))
    assert (gpu.utilization_ratio, gpu.temperature_celsius) == (None, 43)


def test_a_gpu_that_is_lost_does_not_hide_the_others(driver: Driver, started: Any) -> None:
    gpus = started("cuda:0", "cuda:1")
    readings(gpus)
    driver.lost = {0}
    wait_until(lambda: [gpu.utilization_ratio for gpu in gpus.readings] == [None, 0.15], 5)


def test_a_gpu_that_the_driver_does_not_know_is_told_once(
    driver: Driver, started: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert [gpu.device for gpu in readings(started("cuda:0", "cuda:7"))] == ["cuda:0"]
    assert [json.loads(line)["reason"] for line in capfd.readouterr().out.splitlines()] == ["NVML does not know cuda:7"]


def test_it_is_read_again_and_again_until_it_stops(driver: Driver, started: Any) -> None:
    gpus = started("cuda:0")
    wait_until(lambda: driver.asked > 3, 5)
    gpus.stop()
    assert driver.shut_down.wait(5)


def test_nobody_waits_for_a_driver_that_hangs(driver: Driver, started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multigpu_inference.engine.telemetry.gpus._STALE_AFTER_S", 0.05)
    gpus = started("cuda:0")
    readings(gpus)
    driver.hangs.clear()
    try:
        wait_until(lambda: gpus.readings == (), 5)  # what it said before is too old to be told
        gpus.stop()
    finally:
        driver.hangs.set()


def test_without_a_library_there_are_no_readings(
    monkeypatch: pytest.MonkeyPatch, started: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpus = started("cuda:0")
    wait_until(lambda: not gpus._thread.is_alive(), 5)
    assert gpus.readings == ()
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "gpus_not_read"


def test_without_a_gpu_nothing_is_started_nor_logged(started: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert started("cpu:0")._thread is None
    assert capfd.readouterr().out == ""
