"""Replicas on the GPUs that there are, each seeing its own alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from bench.gpu_setup import FLOAT32, Setup
from multigpu_inference import ReplicaSet, plan_placement
from multigpu_inference.engine.devices import DEVICE_ORDER, visible_to
from multigpu_inference.engine.placement import Devices
from multigpu_inference.engine.replica_set import visible_placement


def seen_by_a_process(devices: tuple[str, ...]) -> tuple[int, list[str]]:
    """How many GPUs a process sees that is shown these, and their identities."""
    visible, _ = visible_to(devices)
    script = (
        "import torch\n"
        "print(torch.cuda.device_count())\n"
        "for n in range(torch.cuda.device_count()): print(torch.cuda.get_device_properties(n).uuid)\n"
    )
    environ = {**os.environ, **DEVICE_ORDER, "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run([sys.executable, "-c", script], env=environ, stdout=subprocess.PIPE, text=True, check=True)
    count, *identities = done.stdout.split()
    return int(count), identities


def test_a_replica_sees_its_own_gpu_alone() -> None:
    last = torch.cuda.device_count() - 1
    count, identities = seen_by_a_process((f"cuda:{last}", f"cuda:{last}"))
    assert count == 1
    assert len(identities) == 1


def test_a_pool_worker_sees_none() -> None:
    assert seen_by_a_process(("cpu",)) == (0, [])


def test_two_gpus_of_a_replica_are_two() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    count, identities = seen_by_a_process(("cuda:1", "cuda:0"))
    assert count == len(set(identities)) == 2


def test_without_devices_there_is_a_replica_on_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "cuda")
    for name in ("MULTIGPU_NUM_REPLICAS", "MULTIGPU_PLACEMENT"):
        monkeypatch.delenv(name, raising=False)
    gpus = tuple(f"cuda:{n}" for n in range(torch.cuda.device_count()))
    assert visible_placement(2) == plan_placement(gpus, 2, len(gpus), "ring")


def test_the_stages_are_on_their_devices() -> None:
    setup = Setup.make("cuda", quick=True)

    def load(devices: Devices) -> list[object]:
        assert set(devices) <= {f"cuda:{n}" for n in range(torch.cuda.device_count())}
        return list(setup.stages(FLOAT32, 1))

    model = ReplicaSet.load(load, 2, devices=["cuda:0", "cuda:0"])  # type: ignore[arg-type]
    matte = model(setup.pictures(1)[0])
    assert matte.alpha.device == matte.foreground.device == torch.device("cuda:0")
