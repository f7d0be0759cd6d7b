from __future__ import annotations

import re
from pathlib import Path

import pytest

from multigpu_inference.engine.devices import (
    cpu_devices,
    cuda_devices,
    driver_cuda_version,
    gpu_is_present,
    visible_to,
)
from multigpu_inference.errors import DeviceError
from multigpu_inference.messages import CudaReport

UUIDS = "GPU-aaaa,GPU-bbbb,GPU-cccc"


@pytest.mark.parametrize(
    ("devices", "visible", "local"),
    [
        (("cuda:0",), "0", ("cuda:0",)),
        (("cuda:2",), "2", ("cuda:0",)),
        (("cuda:2", "cuda:3"), "2,3", ("cuda:0", "cuda:1")),
        (("cuda:3", "cuda:0"), "3,0", ("cuda:0", "cuda:1")),
        (("cuda:1", "cuda:1"), "1", ("cuda:0", "cuda:0")),
        (("cuda:2", "cuda:1", "cuda:2"), "2,1", ("cuda:0", "cuda:1", "cuda:0")),
        (("cuda:10", "cpu"), "10", ("cuda:0", "cpu")),
        (("cpu", "cuda:1"), "1", ("cpu", "cuda:0")),
        (("cpu:0", "cpu:1"), "", ("cpu:0", "cpu:1")),
    ],
)
def test_a_worker_is_shown_its_devices_and_no_others(devices: tuple[str, ...], visible: str, local: tuple[str, ...]) -> None:
    assert visible_to(devices, {}) == (visible, local)


@pytest.mark.parametrize(
    ("outer", "visible"),
    [("4,5,6", "6,4"), (" 4, 5 ,6,", "6,4"), (UUIDS, "GPU-cccc,GPU-aaaa"), ("", "2,0")],
)
def test_a_worker_is_shown_them_under_their_outer_names(outer: str, visible: str) -> None:
    assert visible_to(("cuda:2", "cuda:0"), {"CUDA_VISIBLE_DEVICES": outer}) == (visible, ("cuda:0", "cuda:1"))


def test_this_processs_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,6")
    assert visible_to(("cuda:1",)) == ("6", ("cuda:0",))


def test_the_gpus_that_torch_can_use() -> None:
    assert cuda_devices(CudaReport(2, "2.6.0", "12.4", "12.8", "")) == ("cuda:0", "cuda:1")


def test_a_driver_too_old_is_refused_with_both_versions() -> None:
    with pytest.raises(DeviceError) as error:
        cuda_devices(CudaReport(0, "2.6.0+cu124", "12.4", "11.4", "The NVIDIA driver is too old"))
    assert str(error.value) == (
        "torch cannot use the GPU: torch 2.6.0+cu124 is built for CUDA 12.4, the driver is for CUDA 11.4 "
        "(The NVIDIA driver is too old); MULTIGPU_DEVICES=cpu serves on the CPU on purpose"
    )


def test_a_cpu_build_of_torch_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"torch 2\.6\.0\+cpu is built for the CPU, the driver is for CUDA 12\.4"):
        cuda_devices(CudaReport(0, "2.6.0+cpu", None, "12.4", "no reason given"))


def test_no_driver_is_refused() -> None:
    with pytest.raises(DeviceError, match="the driver is for CUDA none"):
        cuda_devices(CudaReport(0, "2.6.0", "12.4", None, "no reason given"))


@pytest.mark.parametrize("path", ["dev/nvidia0", "dev/nvidia15", "proc/driver/nvidia/gpus/0000:00:1e.0"])
def test_a_gpu_is_present(tmp_path: Path, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    assert gpu_is_present(tmp_path)


@pytest.mark.parametrize("path", ["dev/nvidiactl", "dev/nvidia-uvm", "dev/null", "proc/driver/nvidia/gpus"])
def test_no_gpu_is_present(tmp_path: Path, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    assert not gpu_is_present(tmp_path)


def test_a_driver_has_a_version_or_is_not_there() -> None:
    assert re.fullmatch(r"\d+\.\d+", driver_cuda_version() or "0.0")


@pytest.mark.parametrize(("replicas", "stages", "count"), [(1, 1, 1), (1, 2, 2), (4, 2, 4), (2, 3, 3)])
def test_the_cpu_has_a_name_for_every_stage_and_replica(replicas: int, stages: int, count: int) -> None:
    assert cpu_devices(replicas, stages) == tuple(f"cpu:{i}" for i in range(count))
