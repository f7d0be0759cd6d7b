from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from matting.distance import (
    WINDOW,
    distance_features,
    squared_distance_exact,
    squared_distance_windowed,
)


def scattered(height: int, width: int, share: float) -> Tensor:
    return torch.rand(2, height, width, generator=torch.Generator().manual_seed(1)) < share


@pytest.mark.parametrize(("height", "width"), [(37, 53), (1, 40), (40, 1), (120, 90)])
def test_windowed_distance_agrees_with_scipy(height: int, width: int) -> None:
    known = scattered(height, width, 0.02)
    known[:, height // 2, width // 3] = True
    expected = np.stack([distance_transform_edt(~mask.numpy()) ** 2 for mask in known])
    torch.testing.assert_close(squared_distance_windowed(known), torch.from_numpy(expected).float())


def test_windowed_distance_agrees_with_the_exact_one_within_the_window() -> None:
    known = torch.zeros(1, 30, 2 * WINDOW + 41, dtype=torch.bool)
    known[0, 4, 20] = True
    exact, windowed = squared_distance_exact(known), squared_distance_windowed(known)
    near = exact <= WINDOW**2
    torch.testing.assert_close(windowed[near], exact[near])
    assert (windowed[~near] > WINDOW**2).all()


@pytest.mark.parametrize("scratch", [1, 7 * 2 * 37 * 53])
def test_windowed_distance_does_not_depend_on_its_steps(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    known = scattered(37, 53, 0.01)
    at_once = squared_distance_windowed(known)
    monkeypatch.setattr("matting.distance._SCRATCH", scratch)
    assert torch.equal(squared_distance_windowed(known), at_once)


@pytest.mark.parametrize("distance", [squared_distance_exact, squared_distance_windowed])
def test_feature_of_an_empty_channel_is_zero(distance: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matting.distance.squared_distance_exact", distance)
    assert distance_features(torch.zeros(1, 2, 24, 300)).max() == 0


def test_feature_of_a_known_pixel_is_one() -> None:
    trimap = torch.zeros(1, 2, 16, 16)
    trimap[0, 0, 3, 4] = 1
    assert distance_features(trimap)[0, :3, 3, 4].tolist() == [1, 1, 1]


def test_features_come_by_channel_then_by_width() -> None:
    trimap = torch.zeros(1, 2, 16, 32)
    trimap[0, 0, 0, 0] = 1
    trimap[0, 1, 0, 31] = 1
    features = distance_features(trimap)[0, :, 0, 3]
    expected = [math.exp(-(d**2) / (2 * (width * 320) ** 2)) for d in (3, 28) for width in (0.02, 0.08, 0.16)]
    torch.testing.assert_close(features, torch.tensor(expected))


def test_both_ways_give_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    trimap = torch.zeros(2, 2, 40, 700)
    trimap[:, 0, 5, 10] = 1
    trimap[0, 1, 30, 60:80] = 1
    exact = distance_features(trimap)
    monkeypatch.setattr("matting.distance.squared_distance_exact", squared_distance_windowed)
    torch.testing.assert_close(distance_features(trimap), exact, atol=1e-5, rtol=0)
