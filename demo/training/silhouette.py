"""Outlines of things: drawn with a pen around a centre, as solid shapes or as bundles of strands.

Each drawing takes the pen, the centre and the half of its height or width in pixels, and a generator. What
a shape is called tells its family only: every one of them is random within it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.raster import Pen, Points, Random, between, chance, curve

Drawing = Callable[[Pen, float, float, float, Random], None]
_GLYPHS = "ABCDEFGHJKLMNPQRSTUVXYZabdeghkmnqrsy23456789&@%?#"


def blob(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """A closed wavy outline."""
    waves = [(k, between(random, 0, 0.5) / k, between(random, 0, 2 * math.pi)) for k in range(2, 8)]
    stretch, turn = between(random, 0.55, 1.0), between(random, 0, math.pi)
    points: Points = []
    for t in np.linspace(0, 2 * math.pi, 90):
        reach = radius * (0.8 + sum(height * math.sin(k * t + start) for k, height, start in waves))
        px, py = reach * math.cos(t), reach * math.sin(t) * stretch
        points.append((x + px * math.cos(turn) - py * math.sin(turn), y + px * math.sin(turn) + py * math.cos(turn)))
    pen.polygon(points)


def polygon(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """Straight edges: from a triangle to a star."""
    corners, start = int(random.integers(3, 9)), between(random, 0, 2 * math.pi)
    star = between(random, 0.4, 0.9) if chance(random, 0.4) else 1.0
    count = corners * 2 if star < 1 else corners
    points: Points = []
    for index in range(count):
        reach = radius * (star if index % 2 and star < 1 else between(random, 0.8, 1.1))
        angle = start + 2 * math.pi * index / count
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    pen.polygon(points)


def box(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """A rectangle or an ellipse, turned."""
    stretch, turn = between(random, 0.35, 1.0), between(random, 0, math.pi) * chance(random, 0.6)
    if chance(random, 0.5):
        pen.ellipse(x, y, radius, radius * stretch, turn)
        return
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    cos, sin = math.cos(turn) * radius * 0.85, math.sin(turn) * radius * 0.85
    pen.polygon([(x + a * cos - b * stretch * sin, y + a * sin + b * stretch * cos) for a, b in corners])


def ring(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """A shape with a hole that shows what is behind, perhaps with a handle."""
    stretch, turn = between(random, 0.5, 1.0), between(random, 0, math.pi)
    hole = between(random, 0.35, 0.8)
    pen.ellipse(x, y, radius, radius * stretch, turn)
    pen.ellipse(x, y, radius * hole, radius * stretch * hole, turn, erase=True)
    if chance(random, 0.4):
        angle = between(random, 0, 2 * math.pi)
        start = (x + radius * 0.9 * math.cos(angle), y + radius * 0.9 * stretch * math.sin(angle))
        pen.limb(curve(*start, angle, radius * 0.9, between(random, -1, 1), 6), radius * 0.15, radius * 0.1)


def leaf(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """Pointed at both ends, with a stalk, its edge smooth or toothed."""
    turn, width = between(random, 0, 2 * math.pi), between(random, 0.25, 0.6) * radius
    teeth, depth = int(random.integers(6, 16)), between(random, 0, 0.15) * chance(random, 0.5)
    side: list[tuple[float, float]] = []
    for t in np.linspace(0, 1, 40):
        half = width * math.sin(math.pi * t) ** 0.8 * (1 - depth * ((t * teeth) % 1))
        side.append((radius * (2 * t - 1), half))
    outline = [*side, *((along, -half) for along, half in reversed(side))]
    cos, sin = math.cos(turn), math.sin(turn)
    pen.polygon([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in outline])
    stalk = curve(x - radius * cos, y - radius * sin, turn + math.pi, radius * 0.4, between(random, -0.8, 0.8), 6)
    pen.limb(stalk, radius * 0.06, radius * 0.04)


def glyph(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """A letter or a digit, turned a little."""
    side = max(4, int(radius * 2))
    letter = Image.new("L", (side, side))
    font = ImageFont.load_default(size=side)
    ImageDraw.Draw(letter).text(
        (side / 2, side / 2), str(random.choice(list(_GLYPHS))), fill=255, font=font, anchor="mm", stroke_width=side // 24
    )
    turned = letter.rotate(between(random, -30, 30), Image.Resampling.BILINEAR)
    pen.stamp(turned, x - side / 2, y - side / 2)


def creature(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """A body, a head with ears or a beak, legs and a tail."""
    side = random.choice((-1, 1))
    upright = between(random, 0, 1.2)
    long, thick = radius * between(random, 0.5, 0.7), radius * between(random, 0.28, 0.5)
    pen.ellipse(x, y, long, thick, -side * upright)
    hx = x + side * long * math.cos(upright) * between(random, 0.9, 1.15)
    hy = y - long * math.sin(upright) - thick * between(random, 0.5, 1.1)
    head = radius * between(random, 0.2, 0.36)
    pen.limb([(x + side * long * 0.5 * math.cos(upright), y - long * 0.5 * math.sin(upright)), (hx, hy)], thick, head)
    pen.ellipse(hx, hy, head, head * between(random, 0.8, 1.05))
    if chance(random, 0.6):
        for way in (-0.55, 0.55):
            tall = head * between(random, 0.6, 1.5)
            tip = (hx + way * head * between(random, 0.8, 1.5), hy - head * 0.4 - tall)
            pen.polygon([(hx + way * head * 0.4, hy - head * 0.5), tip, (hx + way * head * 1.6, hy - head * 0.3)])
    snout = head * between(random, 0.2, 0.6)
    pen.polygon(
        [(hx + side * head * 0.7, hy - snout * 0.6), (hx + side * (head + snout), hy + 2), (hx + side * head * 0.7, hy + snout)]
    )
    leg, wide = radius * between(random, 0.3, 0.7), radius * between(random, 0.05, 0.16)
    for place in random.permutation([-0.7, -0.45, 0.45, 0.7])[: int(random.integers(2, 5))]:
        start = (x + place * long * max(0.35, math.cos(upright)), y + thick * 0.5)
        points = curve(*start, math.pi / 2 + between(random, -0.3, 0.3), leg + thick * 0.4, between(random, -0.4, 0.4), 5)
        pen.limb(points, wide, wide * between(random, 0.6, 1))
        pen.ellipse(points[-1][0] + side * wide * 0.5, points[-1][1], wide, wide * 0.5)
    if chance(random, 0.7):
        tail = curve(
            x - side * long * 0.9 * math.cos(upright), y, math.pi / 2 - side * between(random, 1, 2.4), radius * 0.8, 1.5, 8
        )
        pen.limb(tail, radius * between(random, 0.05, 0.15), radius * 0.03)


def vessel(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """A bottle, a cup, a lamp: a profile and its mirror image, perhaps with a handle."""
    knots = random.uniform(0.15, 0.65, int(random.integers(3, 7)))
    along = np.linspace(-1, 1, 50)
    half = np.interp(along, np.linspace(-1, 1, len(knots)), knots)
    half = np.convolve(np.pad(half, 4, mode="edge"), np.ones(9) / 9, mode="valid") * radius
    outline = [(x + h, y + a * radius) for a, h in zip(along, half, strict=True)]
    pen.polygon([*outline, *((2 * x - px, py) for px, py in reversed(outline))])
    if chance(random, 0.35):
        pen.limb(
            [
                (x + half[25] * 0.8 + radius * 0.45 * math.sin(t), y + radius * 0.4 * math.cos(t))
                for t in np.linspace(0.2, math.pi - 0.2, 12)
            ],
            radius * 0.09,
            radius * 0.09,
        )


def plant(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """A stem with leaves, a flower on top of some."""
    stem = curve(x, y + radius, -math.pi / 2 + between(random, -0.25, 0.25), radius * 1.5, between(random, -0.6, 0.6), 14)
    pen.limb(stem, radius * between(random, 0.03, 0.09), radius * 0.03)
    for px, py in stem[2:-2:2]:
        if chance(random, 0.7):
            angle = -math.pi / 2 + random.choice((-1, 1)) * between(random, 0.5, 1.3)
            long = radius * between(random, 0.2, 0.5)
            pen.ellipse(px + long * math.cos(angle) / 2, py + long * math.sin(angle) / 2, long / 2, long / 6, angle)
    petals, (tx, ty), reach = int(random.integers(0, 14)), stem[-1], radius * between(random, 0.25, 0.5)
    for index in range(petals):
        angle = 2 * math.pi * index / petals
        pen.ellipse(tx + reach * math.cos(angle) / 2, ty + reach * math.sin(angle) / 2, reach / 2, reach / 5, angle)
    pen.ellipse(tx, ty, reach * 0.3, reach * 0.3)


def burst(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """Strands out of a middle, some with tufts at their ends."""
    middle, width = radius * between(random, 0.08, 0.5), between(random, 0.5, 1.4)
    tuft, spread = int(random.integers(0, 9)), between(random, 0.3, 1.2)
    for angle in random.uniform(0, 2 * math.pi, int(random.integers(60, 260))):
        reach = radius * math.sqrt(between(random, 0.1, 1)) * 0.85
        points = curve(x, y, angle, reach, between(random, -0.4, 0.4), 3)
        pen.strand(points, width, between(random, 0.6, 1.3))
        for _ in range(tuft):
            away = angle + random.normal(0, spread)
            pen.strand(
                curve(*points[-1], away, radius * between(random, 0.06, 0.2), 0.2, 2), width * 0.8, between(random, 0.8, 1.4)
            )
    pen.ellipse(x, y, middle, middle * between(random, 0.7, 1))
    if chance(random, 0.5):
        pen.limb(curve(x, y, math.pi / 2 + between(random, -0.4, 0.4), radius * 2, 0.3, 8), radius * 0.05, radius * 0.04)


def plume(pen: Pen, x: float, y: float, radius: float, random: Random) -> None:
    """Strands on both sides of a bent spine, dense or loose."""
    turn, bend = between(random, 0, 2 * math.pi), between(random, -1, 1)
    spine = curve(x - radius * math.cos(turn), y - radius * math.sin(turn), turn, radius * 2, bend, 40)
    wide, tight = radius * between(random, 0.15, 0.55), between(random, 0.03, 0.4)
    bare, each = int(random.integers(2, 10)), int(random.integers(3, 11))
    for index in range(bare, len(spine) - 1):
        px, py = spine[index]
        along = math.atan2(spine[index + 1][1] - py, spine[index + 1][0] - px)
        share = (index - bare) / (len(spine) - bare)
        for side in (-1, 1):
            for _ in range(each):
                angle = along + side * (0.8 + random.normal(0, tight))
                long = wide * (0.2 + math.sin(math.pi * (0.08 + 0.88 * share)) ** 0.7) * between(random, 0.75, 1.05)
                points = curve(px + random.normal(0, 1), py + random.normal(0, 1), angle, long, -side * 0.5, 4)
                pen.strand(points, between(random, 0.5, 1.2), between(random, 0.7, 1.3))
    pen.limb(spine, max(1.0, radius * 0.03), 0.7)


SOLID: dict[Drawing, float] = {
    blob: 0.16,
    polygon: 0.08,
    box: 0.09,
    ring: 0.05,
    leaf: 0.07,
    glyph: 0.05,
    creature: 0.28,
    vessel: 0.12,
    plant: 0.10,
}
STRANDED: dict[Drawing, float] = {burst: 0.5, plume: 0.5}


def choose(drawings: dict[Drawing, float], random: Random) -> Drawing:
    """Draw one of a table by its weights."""
    weights = np.array(list(drawings.values()))
    return list(drawings)[int(random.choice(len(weights), p=weights / weights.sum()))]
