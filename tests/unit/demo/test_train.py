from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from matting.pipeline import load_pipeline_stages
from train import choose_precision, main

TINY = [
    "--steps",
    "2",
    "--size",
    "32",
    "--batch",
    "2",
    "--workers",
    "0",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--held-out",
    "1",
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "new"
    threads = torch.get_num_threads()
    assert main([*TINY, "--precision", "float32", "--out", str(folder)]) == 0
    torch.set_num_threads(threads)
    return folder


def test_writes_weights_that_the_application_loads(out: Path) -> None:
    assert len(load_pipeline_stages(out, ["cpu"])) == 2


def test_writes_the_scores_and_the_card(out: Path) -> None:
    record = json.loads((out / "scores.json").read_text())
    assert {training["steps"] for training in record["trainings"].values()} == {2}
    assert 0 <= record["scores"]["trimap_iou_foreground"] <= 1
    assert f"| {record['scores']['chain_mse']:.4f} |" in (out / "README.md").read_text()


def test_another_trainings_checkpoint_is_one_clear_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--precision", "float32", "--seed", "2", "--out", str(out), "--resume"]) == 1
    assert "is of another training" in capsys.readouterr().err


def test_the_held_out_seed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*TINY, "--seed", "424242", "--out", str(tmp_path)])
    assert "held-out" in capsys.readouterr().err


@pytest.mark.parametrize(("network", "expected"), [("trimap", "bfloat16"), ("matting", "float32")])
def test_a_gpu_trains_the_trimap_network_alone_in_half_precision(network: str, expected: str) -> None:
    assert choose_precision(network, torch.device("cuda")) == expected


def test_a_precision_that_is_asked_for_is_taken() -> None:
    assert choose_precision("matting", torch.device("cpu"), "bfloat16") == "bfloat16"
