"""Draws the four sample pictures in `photos/`: soft, hairy subjects on textured backgrounds.

Started by hand, `python demo/make_photos.py`; the pictures are committed, so that a clone need not run it.
All is made of seeded numbers. Among them are what real requests bring: a picture stored on its side with an
EXIF orientation, odd sizes, and a WebP.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.raster import curve

Colour = tuple[int, int, int]
Random = np.random.Generator

_SUPERSAMPLING = 3  # everything is drawn this many times larger, and reduced at the end: strands thinner than a pixel
_ORIENTATION_TAG = 0x0112
_STORED_TURNED_LEFT = 6  # EXIF: turn the stored picture a quarter to the right to see it upright


class Canvas:
    """A picture in the making: a background, and a layer for the subject on top; sizes in final pixels."""

    def __init__(self, background: Image.Image) -> None:
        """Start from a background of the final size."""
        self.width, self.height = background.size
        self._background = background
        self._layer = Image.new("RGBA", (self.width * _SUPERSAMPLING, self.height * _SUPERSAMPLING))
        self._draw = ImageDraw.Draw(self._layer)

    def strand(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        """Draw a hair along points, half as wide at its tip."""
        steps = len(points) - 1
        for index, (start, end) in enumerate(itertools.pairwise(points)):
            stroke = width * (1 - 0.5 * index / steps)
            self._draw.line(
                [(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in (start, end)],
                fill=colour,
                width=max(1, round(stroke * _SUPERSAMPLING)),
            )

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Draw a filled ellipse around (x, y)."""
        box = [(x - rx), (y - ry), (x + rx), (y + ry)]
        self._draw.ellipse([value * _SUPERSAMPLING for value in box], fill=colour)

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """Draw a filled polygon."""
        self._draw.polygon([(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in points], fill=colour)

    def ball(self, x: float, y: float, radius: float, lit: Colour, shade: Colour) -> None:
        """Draw a sphere lit from the upper left, as rings from its rim inwards."""
        for ring in np.linspace(0, 1, 40):
            offset = radius * 0.35 * ring
            self.ellipse(x - offset, y - offset, radius * (1 - ring), radius * (1 - ring), mix(shade, lit, ring**0.7))

    def finish(self, grain: Random) -> Image.Image:
        """Put the subject on the background, with a camera's slight blur and grain."""
        reduced = self._layer.resize((self.width, self.height), Image.Resampling.BOX)
        picture = Image.alpha_composite(self._background.convert("RGBA"), reduced).convert("RGB")
        picture = picture.filter(ImageFilter.GaussianBlur(0.4))
        noisy = np.asarray(picture, dtype=np.float64) + grain.normal(0, 1.6, (self.height, self.width, 1))
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """A colour between two: the first at share 0, the second at share 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def clouds(size: tuple[int, int], cells: int, random: Random) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Smooth noise in [0, 1], [H, W], with about `cells` hills across."""
    width, height = size
    coarse = random.random((max(2, cells * height // width), cells)) * 255
    smooth = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float64) / 255


def bokeh(size: tuple[int, int], dark: Colour, bright: Colour, random: Random, lights: int) -> Image.Image:
    """A garden out of focus: soft colour fields with discs of light."""
    share = 0.65 * clouds(size, 4, random) + 0.35 * clouds(size, 11, random)
    fields = np.array(dark) + share[..., None] * (np.array(bright) - np.array(dark))
    picture = Image.fromarray(fields.clip(0, 255).astype(np.uint8)).convert("RGBA")
    discs = Image.new("RGBA", size)
    draw = ImageDraw.Draw(discs)
    for _ in range(lights):
        x, y, radius = random.uniform(0, size[0]), random.uniform(0, size[1]), random.uniform(9, 34)
        colour = mix(bright, (255, 250, 225), random.uniform(0.1, 0.7))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(*colour, int(random.uniform(18, 62))))
    picture = Image.alpha_composite(picture, discs.filter(ImageFilter.GaussianBlur(2.2)))
    return picture.convert("RGB").filter(ImageFilter.GaussianBlur(2.5))


def planks(size: tuple[int, int], random: Random) -> Image.Image:
    """A table of four boards, their grain running across."""
    width, height = size
    grain = clouds((width * 12, height), 40, random)[:, ::12]
    fibres = np.asarray(
        Image.fromarray((random.random((height, 14)) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    )
    share = 0.55 * grain + 0.45 * fibres / 255
    board = np.arange(height) * 4 // height
    share = share * 0.6 + np.array([0.12, 0.3, 0.05, 0.24])[board][:, None]
    seam = np.minimum(np.arange(height) * 4 % height, height - np.arange(height) * 4 % height) < 8
    share[seam] -= 0.35
    pixels = np.array((58, 40, 30)) + share.clip(0, 1)[..., None] * (np.array((176, 134, 98)) - np.array((58, 40, 30)))
    return Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))


def dandelion(random: Random) -> Image.Image:
    """A dandelion clock in an evening garden, 640 x 480."""
    canvas = Canvas(bokeh((640, 480), (22, 52, 46), (118, 150, 74), random, 34))
    x, y, radius = 332.0, 205.0, 150.0
    canvas.strand([(x + 8 * math.sin(t / 3) + t * 2.2, y + t * 24) for t in range(14)], (122, 138, 80), 9)
    canvas.strand([(x - 2 + 8 * math.sin(t / 3) + t * 2.2, y + t * 24) for t in range(14)], (164, 178, 112), 3)
    for index in range(230):
        # Evenly over a sphere, by the golden angle; those behind are darker.
        height = 1 - 2 * (index + 0.5) / 230
        turn = index * 2.39996
        across = math.sqrt(1 - height**2)
        depth = across * math.sin(turn)
        px, py = x + radius * across * math.cos(turn) * 0.86, y + radius * height * 0.86
        light = mix((146, 160, 150), (250, 250, 244), (depth + 1) / 2)
        canvas.strand([(x, y), ((x + px) / 2, (y + py) / 2), (px, py)], mix(light, (150, 140, 110), 0.35), 0.8)
        outward = math.atan2(py - y, px - x)
        for _ in range(15):
            canvas.strand(
                curve(px, py, outward + random.normal(0, 0.75), random.uniform(17, 33), random.normal(0, 0.3), 3),
                light,
                0.6,
            )
    canvas.ball(x, y, 19, (176, 150, 96), (84, 66, 40))
    return canvas.finish(random)


def portrait(random: Random) -> Image.Image:
    """A person with loose hair before autumn trees, 480 x 640."""
    canvas = Canvas(bokeh((480, 640), (86, 46, 30), (222, 158, 84), random, 26))
    hair_dark, hair_light = (44, 26, 20), (138, 82, 50)
    skin, shadow = (232, 186, 158), (196, 140, 112)

    def hair(count: int, inner: tuple[float, float], outer: tuple[float, float], longest: float) -> None:
        """Strands from a parting over the temples and down, between two ellipses around the head."""
        for _ in range(count):
            side, share = random.choice((-1, 1)), random.random()
            rx, ry = (a + (b - a) * share for a, b in zip(inner, outer, strict=True))
            rx, ry = rx + random.normal(0, 2.5), ry + random.normal(0, 2.5)
            points = [(240 + side * rx * math.sin(turn), 270 - ry * math.cos(turn)) for turn in np.linspace(0.02, 1.5, 12)]
            wave, flare = random.uniform(0, 2 * math.pi), random.normal(7, 9)
            x, y = points[-1]
            length = random.uniform(0.62, 1.0) * longest
            for step in np.linspace(0.1, 1, 12):
                sway = 5 * math.sin(wave + 5 * step) - 5 * math.sin(wave)
                points.append((x + side * (sway * step + flare * step**2), y + length * step))
            colour = mix(hair_dark, hair_light, random.beta(1.5, 2.0) * (0.5 + 0.5 * share))
            canvas.strand(points, colour, random.uniform(0.9, 2.2))

    canvas.ellipse(240, 266, 112, 122, hair_dark)
    canvas.polygon([(132, 266), (348, 266), (338, 420), (142, 420)], hair_dark)
    hair(700, (60, 100), (122, 132), 215)
    canvas.polygon([(204, 360), (276, 360), (292, 470), (188, 470)], shadow)
    shoulders = [(240 + 218 * math.cos(t), 650 - 205 * math.sin(t) ** 0.6) for t in np.linspace(0, math.pi, 60)]
    canvas.polygon(shoulders, (52, 84, 98))
    canvas.polygon([(194, 436), (286, 436), (240, 512)], shadow)
    for index in range(24):
        share = index / 23
        canvas.ellipse(
            240 - 10 * share,
            284 - 6 * share,
            88 * (1 - 0.45 * share),
            112 * (1 - 0.4 * share),
            mix(shadow, skin, share**0.6),
        )
    for side in (-1, 1):
        x = 240 + side * 36
        canvas.ellipse(x, 284, 15, 8.5, (246, 240, 234))
        canvas.ellipse(x, 284, 7.5, 8, (70, 94, 82))
        canvas.ellipse(x, 284, 3.6, 4, (18, 20, 22))
        canvas.ellipse(x - 2.4, 281, 1.7, 1.7, (255, 255, 255))
        canvas.strand(curve(x - 18, 282, -0.55, 37, 1.1, 9), (52, 34, 30), 2.6)
        canvas.strand(curve(x - 19, 264, -0.28, 39, 0.56, 9), (84, 54, 40), 4.2)
        canvas.ellipse(x + side * 10, 326, 17, 11, (232, 172, 148))
    canvas.strand(curve(240, 290, 1.72, 34, -0.2, 6), (200, 146, 120), 3.2)
    canvas.strand(curve(231, 327, 0.35, 19, -0.7, 6), (184, 126, 104), 3.0)
    canvas.polygon([(214, 352), (230, 346), (240, 349), (250, 346), (266, 352), (240, 368)], (186, 92, 88))
    canvas.strand(curve(213, 352, 0.18, 54, -0.36, 8), (142, 62, 64), 2.2)
    hair(520, (83, 84), (120, 130), 190)
    for _ in range(90):  # loose ones, against the light
        way = 1 if random.random() < 0.5 else -1
        start = random.uniform(-2.7, -0.45)
        points = curve(
            240 + 116 * math.cos(start),
            268 + 126 * math.sin(start),
            start + random.normal(0, 0.6),
            random.uniform(22, 74),
            way * random.uniform(0.4, 2.2),
            9,
        )
        canvas.strand(points, mix(hair_light, (216, 160, 96), random.random()), 0.7)
    return canvas.finish(random)


def chick(random: Random) -> Image.Image:
    """A chick made of down on a meadow, 511 x 383: no multiple of 8."""
    canvas = Canvas(bokeh((511, 383), (52, 96, 44), (164, 198, 98), random, 22))
    for side in (-1, 1):
        canvas.strand([(252 + side * 30, 300), (254 + side * 34, 346)], (214, 132, 48), 7)
        for toe in (-0.7, 0.0, 0.7):
            canvas.strand(curve(254 + side * 34, 344, math.pi / 2 + toe + 0.25 * side, 20, 0, 3), (222, 140, 52), 5)

    def down(cx: float, cy: float, radius: float, count: int) -> None:
        canvas.ball(cx, cy, radius * 0.94, (250, 218, 110), (206, 150, 44))
        for _ in range(count):
            around, reach = random.uniform(0, 2 * math.pi), math.sqrt(random.random())
            x, y = (
                cx + math.cos(around) * radius * reach * 0.95,
                cy + math.sin(around) * radius * reach * 0.95,
            )
            light = 0.5 - 0.5 * (math.cos(around - 0.8) * reach) + random.normal(0, 0.14)
            colour = mix((194, 138, 40), (255, 238, 158), min(max(light, 0), 1))
            points = curve(x, y, around + random.normal(0, 0.5), random.uniform(9, 22), random.normal(0, 0.7), 4)
            canvas.strand(points, colour, random.uniform(0.5, 1.2))

    down(250, 232, 92, 3600)
    down(286, 122, 62, 2000)
    for _ in range(420):  # a wing
        x, y = random.normal(214, 20), random.normal(232, 17)
        points = curve(x, y, math.pi - 0.5 + random.normal(0, 0.2), random.uniform(20, 44), -0.5, 5)
        canvas.strand(points, mix((196, 140, 44), (244, 204, 96), random.random()), 1.2)
    canvas.polygon([(338, 116), (372, 128), (338, 140)], (226, 142, 54))
    canvas.strand([(340, 128), (368, 128)], (176, 98, 36), 1.6)
    canvas.ellipse(308, 110, 8.5, 9.5, (30, 22, 18))
    canvas.ellipse(305.5, 106.5, 2.6, 2.6, (255, 255, 255))
    for _ in range(190):  # grass before its feet
        x = random.uniform(-10, 521)
        points = curve(x, 392, -math.pi / 2 + random.normal(0, 0.22), random.uniform(22, 66), random.normal(0, 0.5), 6)
        canvas.strand(points, mix((58, 112, 40), (160, 200, 88), random.random()), random.uniform(1.2, 2.6))
    return canvas.finish(random)


def feather(random: Random) -> Image.Image:
    """A feather on a wooden table, 600 x 450."""
    background = planks((600, 450), random)
    canvas = Canvas(background)
    quill = curve(92, 392, -0.42, 470, -0.5, 60)
    for index, (x, y) in enumerate(quill[8:], start=8):
        share = (index - 8) / (len(quill) - 9)
        direction = math.atan2(quill[index][1] - quill[index - 1][1], quill[index][0] - quill[index - 1][0])
        width = 74 * math.sin(math.pi * min(1.0, 0.1 + share * 0.93)) ** 0.65 + 8
        for side in (-1, 1):
            for _ in range(16):
                loose = share < 0.22
                angle = direction + side * (random.normal(0.72, 0.05) + (random.normal(0.25, 0.32) if loose else 0))
                length = width * random.uniform(0.5 if loose else 0.86, 1.05) * (1.0 if side > 0 else 0.8)
                band = 0.5 + 0.5 * math.sin(share * 26 + length * 0.05)
                colour = mix(mix((236, 240, 244), (96, 130, 158), share**1.3), (44, 62, 84), band**3 * share * 0.9)
                shaded = mix(colour, (255, 255, 255) if side > 0 else (60, 70, 84), random.uniform(0, 0.22))
                points = curve(x + random.normal(0, 2), y + random.normal(0, 2), angle, length, -side * 0.42, 5)
                canvas.strand(points, shaded, 0.9)
    canvas.strand(quill, (226, 216, 198), 4.6)
    canvas.strand([(x, y + 1.2) for x, y in quill], (176, 162, 140), 1.6)
    return canvas.finish(random)


def write_photos(folder: Path) -> list[Path]:
    """Draw all pictures into a folder.

    Args:
        folder: made if missing.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings: list[tuple[str, Callable[[Random], Image.Image], dict[str, Any]]] = [
        ("dandelion.jpg", dandelion, {"quality": 84}),
        ("portrait.jpg", portrait, {"quality": 84}),
        ("chick.jpg", chick, {"quality": 84}),
        ("feather.webp", feather, {"quality": 78, "method": 6}),
    ]
    written = []
    for seed, (name, draw, options) in enumerate(drawings, start=1):
        picture = draw(np.random.default_rng(seed))
        if draw is portrait:
            picture = picture.transpose(Image.Transpose.ROTATE_90)
            exif = Image.Exif()
            exif[_ORIENTATION_TAG] = _STORED_TURNED_LEFT
            options = {**options, "exif": exif}
        picture.save(folder / name, **options)
        written.append(folder / name)
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "photos"
    for path in write_photos(target):
        print(f"{path}  {path.stat().st_size / 1000:.0f} KB")
