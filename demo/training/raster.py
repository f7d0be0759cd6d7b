"""Arrays and pens that the composed pictures are made of: smooth noise, blur, colour, anti-aliased drawing.

Pure functions of a seeded generator, but for `Pen`, which draws. Run in the training's composing workers.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

Array = NDArray[Any]  # float32, unless said otherwise
Random = np.random.Generator
Points = list[tuple[float, float]]

SUPERSAMPLING = 3  # outlines are drawn this many times larger, and reduced: strands thinner than a pixel
_TONES = 255


class Pen:
    """Draws coverage and tone at a multiple of the final size; sizes and points in final pixels.

    Tone is a second picture under the same strokes: how bright each stroke is against its neighbours, 1 where
    nothing was said.
    """

    def __init__(self, size: int) -> None:
        """Start with nothing covered, [size, size]."""
        self._size = size
        large = (size * SUPERSAMPLING, size * SUPERSAMPLING)
        self._coverage = Image.new("L", large)
        self._tone = Image.new("L", large, _TONES // 2)
        self._draws = (ImageDraw.Draw(self._coverage), ImageDraw.Draw(self._tone))

    def polygon(self, points: Points) -> None:
        """Fill a closed outline."""
        self._draws[0].polygon([(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points], fill=_TONES)

    def ellipse(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0, *, erase: bool = False) -> None:
        """Fill, or empty, an ellipse around (x, y), turned by radians."""
        outline = [
            (
                x + rx * math.cos(t) * math.cos(turn) - ry * math.sin(t) * math.sin(turn),
                y + rx * math.cos(t) * math.sin(turn) + ry * math.sin(t) * math.cos(turn),
            )
            for t in np.linspace(0, 2 * math.pi, 40)
        ]
        fill = 0 if erase else _TONES
        self._draws[0].polygon([(px * SUPERSAMPLING, py * SUPERSAMPLING) for px, py in outline], fill=fill)

    def limb(self, points: Points, width: float, tip_width: float) -> None:
        """Fill a rounded stroke that gets thinner along its points."""
        steps = max(1, len(points) - 1)
        for index, (start, end) in enumerate(itertools.pairwise(points)):
            stroke = width + (tip_width - width) * index / steps
            line = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in (start, end)]
            self._draws[0].line(line, fill=_TONES, width=max(1, round(stroke * SUPERSAMPLING)))
            self.ellipse(*end, stroke / 2, stroke / 2)

    def strand(self, points: Points, width: float, tone: float) -> None:
        """Draw a hair along points, half as wide at its tip; tone 1 is the surface's own brightness."""
        steps = max(1, len(points) - 1)
        level = round(min(max(tone / 2, 0), 1) * _TONES)
        coverage, brightness = self._draws
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        for index, line in enumerate(itertools.pairwise(scaled)):
            stroke = max(1, round(width * (1 - 0.5 * index / steps) * SUPERSAMPLING))
            coverage.line(line, fill=_TONES, width=stroke)
            brightness.line(line, fill=level, width=stroke)

    def paste(self, coverage: Array) -> None:
        """Add a coverage of the final size."""
        large = _image(coverage).resize(self._coverage.size, Image.Resampling.BILINEAR)
        self._coverage.paste(_TONES, mask=large)

    def stamp(self, shape: Image.Image, x: float, y: float) -> None:
        """Fill a small picture's bright part, its corner at (x, y)."""
        large = shape.resize((shape.width * SUPERSAMPLING, shape.height * SUPERSAMPLING), Image.Resampling.BILINEAR)
        self._coverage.paste(_TONES, (round(x * SUPERSAMPLING), round(y * SUPERSAMPLING)), mask=large)

    def coverage(self) -> Array:
        """What is covered, [H, W] in [0, 1]."""
        return self._reduced(self._coverage) / _TONES

    def tone(self) -> Array:
        """The strokes' tone, [H, W], 1 where none was drawn."""
        return self._reduced(self._tone) / (_TONES // 2)

    def _reduced(self, image: Image.Image) -> Array:
        return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32)


def curve(x: float, y: float, angle: float, length: float, bend: float, steps: int) -> Points:
    """Points along a line that starts at (x, y) and turns by `bend` (radians) over its length."""
    points = [(x, y)]
    for _ in range(steps):
        x += math.cos(angle) * length / steps
        y += math.sin(angle) * length / steps
        angle += bend / steps
        points.append((x, y))
    return points


def clouds(size: int, cells: float, random: Random) -> Array:
    """Smooth noise in [0, 1], [size, size], with about `cells` hills across."""
    count = min(max(2, round(cells)), size)
    return np.clip(enlarge(random.random((count, count), dtype=np.float32), size), 0, 1)


def fractal(size: int, coarsest: float, roughness: float, random: Random) -> Array:
    """Noise at all scales from `coarsest` cells across to the pixel, stretched to [0, 1].

    Args:
        size: height and width.
        coarsest: hills across in the first layer; each next one has twice as many.
        roughness: how much weaker each next layer is; 0.5 looks like clouds, 0.8 like gravel.
        random: the generator.
    """
    total, weight, cells = np.zeros((size, size), np.float32), 1.0, coarsest
    while cells < size and weight > 0.03:
        total += weight * clouds(size, cells, random)
        weight, cells = weight * roughness, cells * 2
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def enlarge(coarse: Array, size: int) -> Array:
    """Resize [h, w] to [size, size], smoothly."""
    image = Image.fromarray(coarse.astype(np.float32), mode="F")
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def blur(x: Array, sigma: float) -> Array:
    """Gaussian blur of [H, W] or [H, W, C] by `sigma` pixels; large ones are done at a lower resolution."""
    if sigma < 0.15:
        return x
    sigmas = (sigma, sigma, 0)[: x.ndim]
    if sigma < 4:
        blurred: Array = gaussian_filter(x, sigmas, truncate=2.5, mode="nearest")
        return blurred
    size = x.shape[0]
    step = int(sigma / 2)
    reduced = [_image(channel, "F").reduce(step) for channel in (x[..., None] if x.ndim == 2 else x).transpose(2, 0, 1)]
    soft = [enlarge(gaussian_filter(np.asarray(channel), sigma / step, mode="nearest"), size) for channel in reduced]
    return soft[0] if x.ndim == 2 else np.stack(soft, axis=2)


def grid(size: int) -> tuple[Array, Array]:
    """Each pixel's y and x, [H, W] each, in [0, 1)."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    return y, x


def colour(random: Random, saturation: float | None = None) -> Array:
    """A random colour, [3]: any hue, often muted, seldom black or white."""
    hue, value = random.random(), random.beta(2.0, 1.7)
    share = random.beta(1.1, 2.4) if saturation is None else saturation
    ramp = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return unit(value * (1 - share + share * unit(ramp)))


def unit(x: NDArray[Any]) -> Array:
    """Cut off what lies outside [0, 1]."""
    within: Array = np.clip(x, 0, 1).astype(np.float32)
    return within


def between(random: Random, low: float, high: float) -> float:
    """A uniform number."""
    return float(random.uniform(low, high))


def chance(random: Random, share: float) -> bool:
    """True in this share of calls."""
    return bool(random.random() < share)


def _image(x: NDArray[Any], mode: str = "L") -> Image.Image:
    if mode == "F":
        return Image.fromarray(np.ascontiguousarray(x, dtype=np.float32), mode="F")
    return Image.fromarray((np.clip(x, 0, 1) * 255).astype(np.uint8))
