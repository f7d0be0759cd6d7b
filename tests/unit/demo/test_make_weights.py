from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from make_weights import PHOTOS, make_weights
from matting.decode import decode
from matting.pipeline import MattingStage, TrimapStage, load_pipeline_stages

PICTURES = sorted(path.name for path in PHOTOS.iterdir())


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "new"
    make_weights(folder)
    return folder


@pytest.fixture(scope="module")
def stages(model_dir: Path) -> list[TrimapStage | MattingStage]:
    return load_pipeline_stages(model_dir, ["cpu", "cpu"])


def test_writes_the_two_checkpoints(model_dir: Path) -> None:
    assert sorted(path.name for path in model_dir.iterdir()) == [
        "checkpoint.safetensors",
        "checkpoint_2.safetensors",
    ]


def test_same_bytes_each_time(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(PHOTOS / PICTURES[0], photos)  # one is enough, and quicker
    first, second = (make_weights(tmp_path / folder, photos) for folder in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("name", PICTURES)
def test_sample_photo_gets_all_classes_and_a_varied_alpha(stages: list[TrimapStage | MattingStage], name: str) -> None:
    first, second = stages
    assert isinstance(first, TrimapStage)
    assert isinstance(second, MattingStage)
    trimapped = first([decode((PHOTOS / name).read_bytes()).pixels])
    trimap = trimapped[0].trimap
    assert min((trimap == value).float().mean().item() for value in (0, 128, 255)) > 0.02
    alpha = second(trimapped)[0].alpha[trimap == 128].float()
    assert alpha.std() > 10
    assert torch.isfinite(alpha).all()


def test_sample_photos_are_small() -> None:
    assert all((PHOTOS / name).stat().st_size <= 60_000 for name in PICTURES)


def test_portrait_is_stored_on_its_side() -> None:
    assert decode((PHOTOS / "portrait.jpg").read_bytes()).pixels.shape == (640, 480, 3)
