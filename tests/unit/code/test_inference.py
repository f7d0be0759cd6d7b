"""The reference application's functions called directly, as in a notebook: over four devices of this machine's CPU."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import inference
import matting.pipeline
from make_weights import make_weights
from multigpu_inference import ReplicaSet

PHOTO = Path(__file__).resolve().parents[3] / "demo" / "photos" / "chick.jpg"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    yield inference
    inference._pool.shutdown()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_weights(folder)
    return folder


@pytest.fixture
def four_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    monkeypatch.setenv("MULTIGPU_NUM_REPLICAS", "4")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which stage ran on which device, in order."""
    calls: list[tuple[str, str]] = []
    lock = threading.Lock()

    def watch(stage: type) -> None:
        original: Any = stage.__call__

        def call(self: Any, items: Any) -> Any:
            with lock:
                calls.append((stage.__name__, str(self.device)))
            return original(self, items)

        monkeypatch.setattr(stage, "__call__", call)

    watch(matting.pipeline.TrimapStage)
    watch(matting.pipeline.MattingStage)
    return calls


@pytest.mark.usefixtures("four_devices")
def test_without_devices_there_is_a_replica_on_each_with_its_second_model_on_the_next(
    script: ModuleType, model_dir: Path
) -> None:
    model: ReplicaSet = script.model_fn(str(model_dir))
    assert [replica.devices for replica in model.replicas] == [
        ("cpu:0", "cpu:1"), ("cpu:1", "cpu:2"), ("cpu:2", "cpu:3"), ("cpu:3", "cpu:0"),
    ]  # fmt: skip


@pytest.mark.usefixtures("four_devices")
def test_requests_take_turns_and_both_stages_run_on_their_own_devices(
    script: ModuleType, model_dir: Path, ran: list[tuple[str, str]]
) -> None:
    model = script.model_fn(str(model_dir))
    data = script.input_fn(PHOTO.read_bytes(), "image/jpeg")
    mattes = [script.predict_fn(data, model) for _ in range(5)]
    assert ran == [
        ("TrimapStage", "cpu:0"), ("MattingStage", "cpu:1"),
        ("TrimapStage", "cpu:1"), ("MattingStage", "cpu:2"),
        ("TrimapStage", "cpu:2"), ("MattingStage", "cpu:3"),
        ("TrimapStage", "cpu:3"), ("MattingStage", "cpu:0"),
        ("TrimapStage", "cpu:0"), ("MattingStage", "cpu:1"),
    ]  # fmt: skip
    assert all(torch.equal(matte.alpha, mattes[0].alpha) for matte in mattes)


@pytest.mark.usefixtures("four_devices")
def test_threads_share_the_replicas_evenly(script: ModuleType, model_dir: Path, ran: list[tuple[str, str]]) -> None:
    model = script.model_fn(str(model_dir))
    photo = torch.zeros(64, 48, 3, dtype=torch.uint8)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: script.predict_fn(photo, model), range(8)))
    first = [device for stage, device in ran if stage == "TrimapStage"]
    assert sorted(first) == sorted(["cpu:0", "cpu:1", "cpu:2", "cpu:3"] * 2)


def test_with_devices_there_is_one_replica_on_just_those(script: ModuleType, model_dir: Path) -> None:
    class Context:
        devices = ("cpu:2", "cpu:0")

    model = script.model_fn(str(model_dir), Context())
    assert [replica.devices for replica in model.replicas] == [("cpu:2", "cpu:0")]
    assert len(model.stages) == script.STAGES


def test_a_stock_containers_context_has_no_devices(
    script: ModuleType, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    assert len(script.model_fn(str(model_dir), object()).replicas) == 1


def test_settings_of_the_application_reach_its_stages(
    script: ModuleType, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIGPU_MATTING_MAX_PIXELS", "5000")
    monkeypatch.setenv("MULTIGPU_MAX_BATCH_SIZE", "3")
    first, second = script.model_fn(str(model_dir), type("Context", (), {"devices": ("cpu", "cpu")})).stages
    assert (first.max_batch_size, second.max_batch_size, second.max_pixels) == (3, 3, 5000)


def test_preprocessing_runs_in_other_processes(script: ModuleType) -> None:
    assert script._pool.run(os.getpid) != os.getpid()
    picture = script.input_fn(PHOTO.read_bytes(), "image/jpeg")
    assert (picture.dtype, picture.shape) == (torch.uint8, (383, 511, 3))


def test_the_four_functions_in_a_row_make_a_matte_of_the_photos_size(script: ModuleType, model_dir: Path) -> None:
    body, content_type = script.sample_input()
    model = script.model_fn(str(model_dir), type("Context", (), {"devices": ("cpu", "cpu")}))
    answer, answer_type = script.output_fn(script.predict_fn(script.input_fn(body, content_type), model), "image/png")
    matte = Image.open(io.BytesIO(answer))
    assert (answer_type, matte.mode, matte.size) == ("image/png", "L", (320, 240))
    assert len(np.unique(np.asarray(matte))) > 1


def test_the_code_folder_does_not_shadow_the_standard_module() -> None:
    import code

    assert "InteractiveConsole" in dir(code)
    assert "inference" in sys.modules
