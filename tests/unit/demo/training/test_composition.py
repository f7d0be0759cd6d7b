from __future__ import annotations

import numpy as np
import pytest

from training.camera import photograph
from training.composition import Composition, compose

SIZE = 96


@pytest.fixture(scope="module")
def compositions() -> list[Composition]:
    return [compose(seed=3, index=index, size=SIZE) for index in range(12)]


def test_same_seed_and_index_give_the_same_picture(compositions: list[Composition]) -> None:
    again = compose(seed=3, index=5, size=SIZE)
    assert np.array_equal(again.photo, compositions[5].photo)
    assert np.array_equal(again.alpha, compositions[5].alpha)


@pytest.mark.parametrize(("seed", "index"), [(3, 6), (4, 5)])
def test_another_seed_or_index_gives_another_picture(compositions: list[Composition], seed: int, index: int) -> None:
    assert not np.array_equal(compose(seed, index, SIZE).photo, compositions[5].photo)


def test_parts_lie_in_range_and_fit_the_size(compositions: list[Composition]) -> None:
    for item in compositions:
        assert item.photo.shape == item.foreground.shape == item.background.shape == (SIZE, SIZE, 3)
        assert item.photo.dtype == np.uint8
        for part in (item.alpha, item.foreground, item.background):
            assert part.dtype == np.float32
            assert part.min() >= 0
            assert part.max() <= 1


def test_blend_is_foreground_over_background(compositions: list[Composition]) -> None:
    for item in compositions:
        alpha = item.alpha[..., None].astype(np.float64)
        exact = alpha * item.foreground + (1 - alpha) * item.background
        assert np.abs(item.blend() - exact).max() < 1e-6


def test_photo_is_the_blend_but_for_noise_and_compression(compositions: list[Composition]) -> None:
    for item in compositions:
        assert np.abs(item.photo / 255.0 - item.blend()).mean() < 0.08
    # Where nothing is added, what is left is the rounding to bytes.
    still = [item for item in compositions if np.abs(item.photo / 255.0 - item.blend()).max() <= 0.5 / 255 + 1e-6]
    assert still


def test_every_picture_has_a_subject_and_a_background(compositions: list[Composition]) -> None:
    for item in compositions:
        assert (item.alpha > 0.5).mean() > 0.002
        assert (item.alpha < 0.05).mean() > 0.05


def test_camera_is_seeded() -> None:
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    first, second = (photograph(image, np.random.default_rng(8)) for _ in range(2))
    assert np.array_equal(first, second)
