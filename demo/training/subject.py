"""What is cut out: an object or a person with its own texture, light and edge, as alpha and colours.

Pure functions of a seeded generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training import silhouette
from training.raster import Array, Pen, Random, between, blur, chance, clouds, colour, curve, grid, unit
from training.texture import mix, texture


@dataclass
class Subject:
    """Alpha [H, W] and colours [H, W, 3], both in [0, 1]; colours are meant everywhere, also where alpha is 0."""

    alpha: Array
    colour: Array

    def cover(self, coverage: Array, surface: Array) -> None:
        """Put a surface on top."""
        alpha = coverage + self.alpha * (1 - coverage)
        # Over, for colours that are not multiplied by alpha. Where there is nothing yet, they become the new ones.
        share = np.divide(coverage, alpha, out=np.ones_like(alpha), where=alpha > 1e-4)
        self.colour = mix(self.colour, surface, share)
        self.alpha = alpha


def draw_subject(size: int, random: Random, scale: float = 1.0) -> Subject:
    """Draw one subject for a square picture.

    Args:
        size: height and width in pixels.
        random: the generator.
        scale: pixels of a hair's width for each one at 320; widths below a pixel become faint.

    Returns:
        The subject, its edges sharp, furry, soft or partly transparent.
    """
    if chance(random, 0.24):
        subject = person(size, random, scale)
    elif chance(random, 0.2):
        subject = _thing(size, random, silhouette.STRANDED, scale)
    else:
        subject = _thing(size, random, silhouette.SOLID, scale)
        for _ in range(int(random.integers(1, 3)) if chance(random, 0.12) else 0):
            more = _thing(size, random, silhouette.SOLID, scale, share=0.6)
            subject.cover(more.alpha, more.colour)
    return _soften(subject, random)


def person(size: int, random: Random, scale: float) -> Subject:
    """Head, hair and shoulders, or more of the body, cut off at the picture's lower edge."""
    head = size * between(random, 0.08, 0.2)
    x, y = size * between(random, 0.32, 0.68), size * between(random, 0.2, 0.42)
    skin = np.array([between(random, 0.35, 0.95), 0, 0], np.float32)
    skin[1:] = skin[0] * between(random, 0.7, 0.85), skin[0] * between(random, 0.5, 0.75)
    hair = colour(random, between(random, 0, 0.6)) * between(random, 0.25, 1)
    subject = Subject(np.zeros((size, size), np.float32), np.broadcast_to(hair, (size, size, 3)).astype(np.float32))
    long, reach = head * between(random, 0.0, 3.0), between(random, 1.15, 1.6)
    _hair(subject, random, (x, y), head, long, reach, hair, scale, 0.5)
    pen = Pen(size)
    wide, top = head * between(random, 1.6, 2.8), y + head * between(random, 1.5, 2.0)
    slope = between(random, 0.3, 0.8)
    shoulders = [(x + wide * math.cos(t), top + size - size * math.sin(t) ** slope) for t in np.linspace(0, math.pi, 60)]
    shoulders = [(px, min(py, top + wide * 4)) for px, py in shoulders]
    pen.polygon([*shoulders, (x - wide, size * 2), (x + wide, size * 2)])
    if chance(random, 0.3):
        side = random.choice((-1, 1))
        arm = curve(
            x + side * wide * 0.85,
            top + head * 0.7,
            -side * 0.3 + math.pi / 2 - side * 0.8,
            head * 3,
            between(random, -3, 1),
            10,
        )
        pen.limb(arm, head * 0.7, head * 0.4)
    subject.cover(pen.coverage(), shade(pen.coverage(), texture(size, random), random, size))
    pen = Pen(size)
    pen.limb([(x, y), (x, top + head * 0.35)], head * between(random, 0.8, 1.1), head * 1.1)
    subject.cover(pen.coverage(), np.broadcast_to(skin * between(random, 0.7, 0.95), (size, size, 3)))
    pen = Pen(size)
    pen.ellipse(x, y, head * between(random, 0.75, 0.95), head * between(random, 1.0, 1.2))
    face = np.broadcast_to(skin, (size, size, 3)).astype(np.float32)
    subject.cover(pen.coverage(), shade(pen.coverage(), face, random, size))
    _features(subject, random, (x, y), head, skin)
    _hair(subject, random, (x, y), head, long * 0.6, reach * 0.95, hair * 1.15, scale, 0.0)
    return subject


def shade(coverage: Array, surface: Array, random: Random, size: int) -> Array:
    """Light a surface as if its outline were that of something round."""
    hill = blur(coverage, size * between(random, 0.02, 0.08))
    down, right = np.gradient(hill)
    angle, strength = between(random, 0, 2 * math.pi), between(random, 0, 1) * size * 0.12
    light = 1 + strength * (np.cos(angle) * right + np.sin(angle) * down)
    across = between(random, -0.5, 0.5) * (clouds(size, 3, random) - 0.5)
    return unit(surface * np.clip(light + across, 0.25, 1.8)[..., None])


def fur(pen: Pen, coverage: Array, random: Random, count: int, length: float, width: float) -> None:
    """Draw strands that leave a shape's rim, and lie on the shape itself."""
    down, right = np.gradient(blur(coverage, max(2.0, length / 3)))
    inner = np.flatnonzero(coverage > 0.5)
    rim = np.flatnonzero((np.hypot(down, right) > 0.02) & (coverage > 0.5))
    if not len(inner) or not len(rim):
        return
    lie, curl = between(random, -1.2, 1.2) * chance(random, 0.6), between(random, 0.1, 0.9)
    for place in np.concatenate((random.choice(inner, count // 3), random.choice(rim, count - count // 3))):
        y, x = divmod(int(place), coverage.shape[1])
        outward = math.atan2(-down[y, x], -right[y, x]) + lie
        points = curve(x, y, outward + random.normal(0, 0.4), length * between(random, 0.4, 1.1), random.normal(0, curl), 4)
        pen.strand(points, width * between(random, 0.6, 1.3), 1 + random.normal(0, 0.2))


def _thing(size: int, random: Random, drawings: dict[silhouette.Drawing, float], scale: float, share: float = 1.0) -> Subject:
    """One shape with a texture, details on it, and perhaps fur."""
    radius = size * between(random, 0.2, 0.48) * share
    x, y = (size * float(np.clip(random.normal(0.5, 0.11), 0.2, 0.8)) for _ in range(2))
    if chance(random, 0.15):
        y = size - radius * between(random, 0, 0.8)  # cut off below, as much in photographs is
    pen = Pen(size)
    silhouette.choose(drawings, random)(pen, x, y, radius, random)
    coverage = pen.coverage()
    if drawings is silhouette.SOLID and chance(random, 0.4):
        length = radius * between(random, 0.06, 0.4)
        fur(pen, coverage, random, int(between(random, 150, 900)), length, scale * between(random, 0.6, 1.6))
        coverage = pen.coverage()
    surface = shade(coverage, texture(size, random), random, size)
    surface = np.clip(surface * pen.tone()[..., None], 0, 1)
    subject = Subject(coverage, surface)
    solid = np.clip(blur(coverage, size * 0.01) * 2 - 1, 0, 1)
    for _ in range(int(random.integers(0, 4))):
        detail = Pen(size)
        spot = (x + random.normal(0, radius * 0.4), y + random.normal(0, radius * 0.4))
        silhouette.choose(silhouette.SOLID, random)(detail, *spot, radius * between(random, 0.08, 0.5), random)
        inside = detail.coverage() * solid
        subject.colour = mix(subject.colour, shade(coverage, texture(size, random), random, size), inside)
    return subject


def _hair(
    subject: Subject,
    random: Random,
    at: tuple[float, float],
    head: float,
    long: float,
    reach: float,
    tint: Array,
    scale: float,
    fill: float,
) -> None:
    """Strands from the crown over both sides of a head and down; `fill` of it is solid behind the face."""
    size = subject.alpha.shape[0]
    x, y = at
    pen = Pen(size)
    if fill:
        pen.ellipse(x, y - head * 0.1, head * reach * 0.92, head * reach * 0.95)
        if long > head * 0.5:
            wide = head * reach * 0.85
            pen.polygon([(x - wide, y), (x + wide, y), (x + wide * 0.95, y + long * 0.8), (x - wide * 0.95, y + long * 0.8)])
    loose, wild = between(random, 0.02, 0.3), between(random, 0.1, 0.5)
    for _ in range(int(between(random, 80, 320))):
        side, rim = random.choice((-1, 1)), head * (reach + random.normal(0, 0.05)) * (1 if fill else between(random, 0.75, 1))
        last = between(random, 0.9, 1.7) if fill else between(random, 0.5, 1.35)
        points = [(x + side * rim * math.sin(t), y - rim * math.cos(t)) for t in np.linspace(0.02, last, 7)]
        points += curve(
            *points[-1], math.pi / 2 + random.normal(0, wild), long * between(random, 0.5, 1.1), random.normal(0, 0.8), 6
        )
        pen.strand(points, scale * between(random, 0.7, 1.8), 1 + random.normal(0, 0.25))
    for angle in random.uniform(-math.pi, 0.2, int(220 * loose)):
        start = (x + head * reach * math.cos(angle), y + head * reach * math.sin(angle))
        points = curve(*start, angle + random.normal(0, 0.7), head * between(random, 0.2, 0.8), random.normal(0, 1.5), 8)
        pen.strand(points, scale * between(random, 0.4, 0.9), 1 + random.normal(0.2, 0.2))
    tone = pen.tone()[..., None] * (0.85 + 0.3 * clouds(size, 20, random)[..., None])
    subject.cover(pen.coverage(), np.clip(tint * tone, 0, 1))


def _features(subject: Subject, random: Random, at: tuple[float, float], head: float, skin: Array) -> None:
    """Eyes, brows and a mouth: dark and light spots that belong to the face."""
    size = subject.alpha.shape[0]
    x, y = at
    eye, brow = between(random, 0.3, 0.42) * head, between(random, 0.1, 0.2) * head
    parts: list[tuple[Array, list[tuple[float, float, float, float]]]] = [
        (np.full(3, 0.93, np.float32), [(x + s * eye, y, head * 0.15, head * 0.08) for s in (-1, 1)]),
        (colour(random) * 0.4, [(x + s * eye, y, head * 0.07, head * 0.08) for s in (-1, 1)]),
        (skin * 0.45, [(x + s * eye, y - brow - head * 0.08, head * 0.2, head * 0.03) for s in (-1, 1)]),
        (skin * np.array([0.8, 0.5, 0.5], np.float32), [(x, y + head * 0.55, head * 0.28, head * 0.07)]),
    ]
    for tint, spots in parts:
        pen = Pen(size)
        for spot in spots:
            pen.ellipse(*spot)
        subject.colour = mix(subject.colour, np.broadcast_to(tint, (size, size, 3)), pen.coverage())


def _soften(subject: Subject, random: Random) -> Subject:
    """Defocus, transparency and fraying: what makes an edge more than a line."""
    size = subject.alpha.shape[0]
    alpha = subject.alpha
    if chance(random, 0.12):
        # A gradient of sharpness: one side of it is out of focus.
        y, x = grid(size)
        share = np.clip(((x if chance(random, 0.5) else y) - 0.3) * 2, 0, 1)
        alpha = alpha + share * (blur(alpha, size * between(random, 0.006, 0.03)) - alpha)
    elif chance(random, 0.3):
        alpha = blur(alpha, size * between(random, 0.002, 0.012))
    if chance(random, 0.07):
        alpha = alpha * (1 - between(random, 0.2, 0.7) * np.clip((clouds(size, 3, random) - 0.45) * 6, 0, 1))
    if chance(random, 0.1):
        # Smoke, spray, cloth: the rim dissolves into shreds.
        rim = np.clip(1.2 - 1.2 * blur(alpha, size * between(random, 0.01, 0.03)), 0, 1)
        alpha = alpha * np.clip(1 - rim * clouds(size, between(random, 20, 60), random) * 2.5, 0, 1)
    return Subject(unit(alpha), unit(subject.colour))
