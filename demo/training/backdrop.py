"""What is behind: studio walls, blurred gardens, streets of boxes, meadows, and things that nobody means.

Pure functions of a seeded generator.
"""

from __future__ import annotations

import math

import numpy as np

from training import silhouette
from training.raster import Array, Pen, Random, between, blur, chance, colour, curve, grid, unit
from training.texture import mix, texture


def draw_backdrop(size: int, random: Random) -> Array:
    """Draw a background, [size, size, 3] in [0, 1]."""
    scene = texture(size, random)
    calm = chance(random, 0.4)  # as behind most things that somebody took a photo of
    if calm:
        scene = blur(scene, size * between(random, 0.01, 0.08))
    if chance(random, 0.35):
        scene = _below_horizon(scene, random)
    if chance(random, 0.2 if calm else 0.6):
        scene = _clutter(scene, random)
    if chance(random, 0.3):
        scene = _lights(scene, random)
    if chance(random, 0.12):
        scene = _blades(scene, random)
    # Cameras focus on what is in front: most backgrounds are soft, some very.
    if chance(random, 0.65):
        scene = blur(scene, size * math.exp(between(random, math.log(0.002), math.log(0.05))))
    return unit(scene)


def cast_shadow(scene: Array, alpha: Array, random: Random) -> Array:
    """Darken a background where a subject would keep the light from it."""
    size = len(scene)
    shadow = blur(alpha, size * between(random, 0.01, 0.06))
    shift = [int(size * between(random, *span)) for span in ((-0.01, 0.06), (-0.06, 0.06))]
    shadow = np.roll(shadow, shift, axis=(0, 1))
    return (scene * (1 - between(random, 0.1, 0.6) * shadow[..., None])).astype(np.float32)


def _below_horizon(scene: Array, random: Random) -> Array:
    """Another surface in the lower part: a floor, a table, a meadow."""
    size = len(scene)
    y, x = grid(size)
    line = between(random, 0.35, 0.85) + between(random, -0.15, 0.15) * x
    return mix(scene, texture(size, random), np.clip((y - line) * size / between(random, 1, 12), 0, 1))


def _clutter(scene: Array, random: Random) -> Array:
    """Things in the distance: smaller than a subject, or cut off by the picture's edge, each out of focus."""
    size = len(scene)
    for _ in range(int(random.integers(1, 9))):
        pen = Pen(size)
        if chance(random, 0.5):
            x, y = between(random, 0, size), between(random, 0, size)
            radius = size * between(random, 0.02, 0.12)
        else:
            edge, along = random.choice((0.0, 1.0)), between(random, 0, 1)
            x, y = (edge * size, along * size) if chance(random, 0.6) else (along * size, edge * size)
            radius = size * between(random, 0.1, 0.4)
        silhouette.choose(silhouette.SOLID, random)(pen, x, y, radius, random)
        far = size * between(random, 0, 0.015)
        scene = mix(scene, texture(size, random), blur(pen.coverage(), far))
    return scene


def _lights(scene: Array, random: Random) -> Array:
    """Discs of light out of focus."""
    size = len(scene)
    for _ in range(3):
        pen = Pen(size)
        for _ in range(int(random.integers(2, 9))):
            radius = size * between(random, 0.01, 0.07)
            pen.ellipse(between(random, 0, size), between(random, 0, size), radius, radius)
        tint = (0.5 + 0.5 * colour(random)).astype(np.float32)
        scene = mix(scene, np.broadcast_to(tint, scene.shape), pen.coverage() * between(random, 0.05, 0.6))
    return scene


def _blades(scene: Array, random: Random) -> Array:
    """Grass, reeds or twigs."""
    size = len(scene)
    pen = Pen(size)
    bottom, tall = between(random, 0.6, 1.2) * size, size * between(random, 0.05, 0.3)
    for x in random.uniform(0, size, int(between(random, 50, 250))):
        lean = -math.pi / 2 + random.normal(0, 0.3)
        points = curve(x, bottom + random.normal(0, tall / 3), lean, tall * between(random, 0.4, 1), random.normal(0, 0.5), 4)
        pen.strand(points, size / 320 * between(random, 0.8, 3), 1 + random.normal(0, 0.3))
    surface = np.clip(texture(size, random) * pen.tone()[..., None], 0, 1)
    return mix(scene, surface, pen.coverage())
