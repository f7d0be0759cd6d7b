"""A training picture: subject, backdrop and their blend, composed from a seed and an index alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.backdrop import cast_shadow, draw_backdrop
from training.camera import Exposure, photograph
from training.raster import Array, between, chance
from training.subject import Subject, draw_subject

_LEAST_CONTRAST = 0.13
_TRIES = 3


@dataclass(frozen=True)
class Composition:
    """One picture and what it was made of, square.

    `photo` is uint8 [H, W, 3]. The others are in [0, 1]: `alpha` [H, W], `foreground` and `background`
    [H, W, 3].
    """

    photo: NDArray[np.uint8]
    alpha: Array
    foreground: Array
    background: Array

    def blend(self) -> Array:
        """The picture before the camera's noise and compression, [H, W, 3]."""
        alpha = self.alpha[..., None]
        blended: Array = alpha * self.foreground + (1 - alpha) * self.background
        return blended


def contrast(subject: Subject, scene: Array) -> float:
    """How far the subject's mean colour is from that of the scene, in [0, sqrt(3)]."""
    alpha = subject.alpha[..., None]
    inside = (subject.colour * alpha).sum(axis=(0, 1)) / (alpha.sum() + 1e-6)
    outside = (scene * (1 - alpha)).sum(axis=(0, 1)) / ((1 - alpha).sum() + 1e-6)
    return float(np.linalg.norm(inside - outside))


def compose(seed: int, index: int, size: int) -> Composition:
    """Compose a picture; the same arguments always give the same one.

    Args:
        seed: of the whole set.
        index: which picture of it.
        size: height and width in pixels.
    """
    random = np.random.default_rng((seed, index))
    subject = draw_subject(size, random, scale=size / 320 * between(random, 0.6, 2.0))
    scene = draw_backdrop(size, random)
    for _ in range(_TRIES):
        if contrast(subject, scene) > _LEAST_CONTRAST:
            break
        scene = draw_backdrop(size, random)
    if chance(random, 0.35):
        scene = cast_shadow(scene, subject.alpha, random)
    if chance(random, 0.5):
        subject.alpha, subject.colour, scene = subject.alpha[:, ::-1], subject.colour[:, ::-1], scene[:, ::-1]
    exposure = Exposure(random)
    foreground, background = exposure.develop(subject.colour), exposure.develop(scene)
    parts = Composition(np.empty(0, np.uint8), np.ascontiguousarray(subject.alpha), foreground, background)
    return Composition(photograph(parts.blend(), random), parts.alpha, foreground, background)
