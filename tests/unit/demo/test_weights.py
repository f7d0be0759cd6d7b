from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo_model import WEIGHTS, prepare_model
from make_weights import make_weights
from matting.weights import load_matting_network, load_trimap_network
from training.evaluation import evaluate

PICTURES, SIZE, SEED = 8, 320, 5150
# Bounds that random weights miss by far (shown below), and these weights keep with room to spare.
LEAST_FOREGROUND_IOU = 0.3
MOST_CHAIN_MSE = 0.1


@pytest.fixture(scope="module")
def scores() -> dict[str, float]:
    return evaluate(WEIGHTS, PICTURES, SIZE, SEED)


def test_committed_weights_load_strictly_as_small_networks() -> None:
    trimap_network, matting_network = load_trimap_network(WEIGHTS), load_matting_network(WEIGHTS)
    assert (trimap_network.variant, trimap_network.out_channels) == ("small", 3)
    assert matting_network.variant == "small"


def test_committed_weights_are_a_few_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 5_000_000


def test_committed_weights_find_the_subject(scores: dict[str, float]) -> None:
    assert scores["trimap_iou_foreground"] > LEAST_FOREGROUND_IOU
    assert scores["chain_mse"] < MOST_CHAIN_MSE


def test_committed_matting_beats_an_alpha_of_one_half(scores: dict[str, float]) -> None:
    assert scores["matting_mse"] < 0.6 * scores["half_mse"]
    assert scores["matting_sad"] < 0.6 * scores["half_sad"]


@pytest.mark.slow
def test_random_weights_miss_the_bounds(tmp_path: Path) -> None:
    make_weights(tmp_path)
    random = evaluate(tmp_path, PICTURES, SIZE, SEED)
    assert random["trimap_iou_foreground"] < LEAST_FOREGROUND_IOU
    assert random["chain_mse"] > MOST_CHAIN_MSE


def test_card_has_the_figures_of_the_scores() -> None:
    scores = json.loads((WEIGHTS / "scores.json").read_text())["scores"]
    assert f"foreground {scores['trimap_iou_foreground']:.3f}" in (WEIGHTS / "README.md").read_text()


def test_the_demo_serves_the_committed_weights(tmp_path: Path) -> None:
    prepare_model(tmp_path / "model.tar.gz", tmp_path / "model")
    for path in WEIGHTS.glob("*.safetensors"):
        assert (tmp_path / "model" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "model" / "code" / "inference.py").is_file()
