"""Surfaces: colours of a wall, a skin, a cloth, a fur. Pure functions of a seeded generator.

Both the objects and what is behind them wear these, so that no texture tells one from the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from training.raster import Array, Random, between, blur, chance, clouds, colour, fractal, grid, unit


def texture(size: int, random: Random) -> Array:
    """Draw a random surface, [size, size, 3] in [0, 1]."""
    kinds: list[tuple[float, Callable[[int, Random], Array]]] = [
        (0.16, plain),
        (0.14, gradient),
        (0.26, mottled),
        (0.12, stripes),
        (0.10, grain),
        (0.08, checks),
        (0.14, patches),
    ]
    kind = random.choice(len(kinds), p=[share for share, _ in kinds])
    surface = kinds[kind][1](size, random)
    if chance(random, 0.6):
        fine = fractal(size, between(random, 8, 40), between(random, 0.5, 0.95), random)
        surface = surface * (1 + between(random, 0.05, 0.5) * (fine[..., None] - 0.5))
    return unit(surface)


def plain(size: int, random: Random) -> Array:
    """One colour."""
    return np.broadcast_to(colour(random), (size, size, 3)).astype(np.float32)


def gradient(size: int, random: Random) -> Array:
    """From one colour to another, along a line or out of a centre."""
    y, x = grid(size)
    if chance(random, 0.5):
        angle = between(random, 0, 2 * math.pi)
        share = (x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle) + 0.5
    else:
        share = np.hypot(x - between(random, 0.2, 0.8), y - between(random, 0.2, 0.8)) * between(random, 0.8, 1.6)
    return mix(colour(random), colour(random), np.clip(share, 0, 1))


def mottled(size: int, random: Random) -> Array:
    """Two or three colours in irregular clouds."""
    coarsest = math.exp(between(random, math.log(2), math.log(24)))
    share = fractal(size, coarsest, between(random, 0.3, 0.8), random)
    surface = mix(colour(random), colour(random), share)
    if chance(random, 0.5):
        spots = np.clip((clouds(size, coarsest * 2, random) - 0.6) * between(random, 4, 20), 0, 1)
        surface = surface + spots[..., None] * (colour(random) - surface)
    return surface


def stripes(size: int, random: Random) -> Array:
    """Stripes at any angle, wavy or straight, hard or soft."""
    y, x = grid(size)
    angle, count = between(random, 0, math.pi), math.exp(between(random, math.log(3), math.log(40)))
    wave = between(random, 0, 0.1) * clouds(size, 4, random) if chance(random, 0.5) else 0.0
    phase = (x * math.cos(angle) + y * math.sin(angle) + wave) * count * 2 * math.pi
    share = np.clip(0.5 + np.sin(phase) * between(random, 0.4, 4), 0, 1)
    return mix(colour(random), colour(random), share)


def grain(size: int, random: Random) -> Array:
    """Fibres of one direction, as in wood, cloth or short fur."""
    length, fine = int(between(random, 3, 12)), int(between(random, size / 6, size / 1.5))
    noise = random.random((max(2, fine // length), fine), dtype=np.float32)
    noise = noise if chance(random, 0.5) else noise.T
    rows, columns = (np.linspace(0, side - 1, size) for side in noise.shape)
    share = noise[rows.astype(int)][:, columns.astype(int)]
    share = 0.6 * blur(share, between(random, 0.5, 1.2)) + 0.4 * clouds(size, between(random, 2, 8), random)
    return mix(colour(random), colour(random), np.clip(share, 0, 1))


def checks(size: int, random: Random) -> Array:
    """Bricks, tiles or squares, with joints."""
    y, x = grid(size)
    rows = between(random, 3, 20)
    columns = rows * between(random, 0.4, 1.5)
    row = np.floor(y * rows)
    shift = (row % 2) * 0.5 if chance(random, 0.6) else 0 * row
    column = np.floor(x * columns + shift)
    tones = random.random((64, 64), dtype=np.float32)
    share = tones[row.astype(int) % 64, column.astype(int) % 64]
    joint = np.minimum((y * rows) % 1, (x * columns + shift) % 1) < between(random, 0.0, 0.15)
    surface = mix(colour(random), colour(random), share)
    return np.where(joint[..., None], colour(random), surface).astype(np.float32)


def patches(size: int, random: Random) -> Array:
    """A few colours with sharp borders, as on a printed cloth or a spotted skin."""
    noise = fractal(size, between(random, 2, 10), between(random, 0.2, 0.6), random)
    levels = int(random.integers(2, 5))
    colours = np.stack([colour(random) for _ in range(levels)])
    chosen = np.minimum((noise * levels).astype(int), levels - 1)
    return blur(colours[chosen].astype(np.float32), 0.5)


def mix(first: Array, second: Array, share: Array) -> Array:
    """Colours [H, W, 3] between two: the first where share is 0, the second where it is 1."""
    mixed: Array = first + share[..., None] * (second - first)
    return mixed.astype(np.float32)
