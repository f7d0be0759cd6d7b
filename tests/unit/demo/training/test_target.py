from __future__ import annotations

import numpy as np
import torch

from matting.pipeline import network_input
from training.composition import compose
from training.target import BACKGROUND, FOREGROUND, UNKNOWN, classes, known_of, matting_sample, trimap_input


def test_classes_of_a_hand_drawn_edge() -> None:
    alpha = np.array([[0, 0, 0, 0, 0.5, 1, 1, 1, 1]], np.float32).repeat(9, axis=0)
    drawn = classes(alpha, margin=2)
    assert drawn[4].tolist() == [BACKGROUND, BACKGROUND, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, FOREGROUND, FOREGROUND]


def test_known_channels_are_background_then_foreground() -> None:
    known = known_of(torch.tensor([[[BACKGROUND, UNKNOWN, FOREGROUND]]]))
    assert known.tolist() == [[[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]]]


def test_stage_one_is_trained_on_what_the_application_feeds_it() -> None:
    photo = torch.from_numpy(compose(1, 0, 320).photo.copy())
    assert torch.allclose(trimap_input(photo[None]), network_input(photo), atol=1e-5)


def test_matting_sample_is_one_part_of_everything() -> None:
    composition = compose(1, 2, 120)
    sample = matting_sample(composition, np.random.default_rng(0), 80)
    assert sample["photo"].shape == (80, 80, 3)
    assert (sample["classes"] == UNKNOWN).any()
    alpha = sample["alpha"]
    blend = alpha * sample["foreground"] + (1 - alpha) * sample["background"]
    assert (blend.permute(1, 2, 0) - sample["photo"].float() / 255).abs().mean() < 0.08


def test_matting_trimap_never_says_known_of_a_mixed_pixel() -> None:
    for index in range(8):
        sample = matting_sample(compose(2, index, 120), np.random.default_rng(index), 80)
        alpha = sample["alpha"][0]
        assert (alpha[sample["classes"] == FOREGROUND] > 0.95).all()
        assert (alpha[sample["classes"] == BACKGROUND] < 0.05).all()
