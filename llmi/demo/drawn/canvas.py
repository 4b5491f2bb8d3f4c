"""A canvas in units of its own height, and the light in which a scene is painted.

Invariants: y runs from 0 (top) to 1 (bottom), x from 0 to `width`; every colour passes through the light, so
that a scene is consistent by day and by night; drawn at `SCALE` times the size and scaled down once, for
smooth edges.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
SCALE = 3


@dataclass(frozen=True)
class Light:
    """A time of day: sky from `high` to `low`, everything else mixed with `tint` by `strength` (0 to 1)."""

    name: str
    high: Colour
    low: Colour
    tint: Colour
    strength: float
    disc: Colour  # sun or moon
    stars: bool = False


LIGHTS = {
    light.name: light
    for light in (
        Light("at dawn", (126, 148, 200), (255, 205, 178), (255, 196, 186), 0.22, (255, 240, 214)),
        Light("at noon", (74, 152, 224), (196, 228, 248), (255, 255, 255), 0.0, (255, 248, 206)),
        Light("at sunset", (88, 64, 128), (255, 158, 84), (236, 104, 62), 0.30, (255, 226, 150)),
        Light("at night", (12, 20, 54), (52, 68, 124), (16, 26, 74), 0.58, (240, 240, 222), stars=True),
        Light("in rain", (110, 124, 138), (176, 186, 194), (128, 140, 152), 0.42, (190, 198, 204)),
        Light("in autumn", (132, 176, 212), (246, 226, 190), (214, 128, 48), 0.26, (255, 240, 200)),
        Light("in winter", (168, 190, 214), (232, 240, 248), (240, 246, 255), 0.46, (250, 250, 250)),
        Light("in fog", (186, 192, 198), (216, 218, 220), (206, 210, 214), 0.62, (226, 226, 224)),
    )
}


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` moved towards `b` by `share` (0 to 1)."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


class Canvas:
    """Draws shapes given in units of the canvas' height. `size` is width and height of the picture in pixels.

    `chance` places what stands on the ground; the sky has its own, so that a scene keeps its layout in any
    light.
    """

    def __init__(self, size: tuple[int, int], light: Light, seed: str):
        self.light, self.size = light, size
        self.chance, self._air = random.Random(seed), random.Random(f"{seed} {light.name}")
        self.width = size[0] / size[1]
        self._unit = size[1] * SCALE
        self._image = Image.new("RGB", (size[0] * SCALE, self._unit))
        self._draw = ImageDraw.Draw(self._image)

    def lit(self, colour: Colour) -> Colour:
        """The colour as this light shows it."""
        return mix(colour, self.light.tint, self.light.strength)

    def sky(self) -> None:
        """The sky with its sun or moon, its stars or clouds, its rain or snow."""
        self.fade(0, 1, self.light.high, self.light.low)
        if self.light.stars:
            for _ in range(40):
                self._dot(self._air.uniform(0, self.width), self._air.uniform(0, 0.6), 0.004, (255, 255, 240))
        x, y = self._air.uniform(0.12, 0.3) * self.width, self._air.uniform(0.14, 0.26)
        if self._air.random() < 0.5:
            x = self.width - x
        if self.light.name not in ("in rain", "in winter", "in fog"):
            self._dot(x, y, 0.085, mix(self.light.disc, self.light.high, 0.72))
            self._dot(x, y, 0.06, self.light.disc)
        if not self.light.stars:
            for _ in range(self._air.randint(1, 3)):
                self._cloud(self._air.uniform(0, self.width), self._air.uniform(0.08, 0.34))

    def weather(self) -> None:
        """What falls in front of the scene."""
        for _ in range(90 if self.light.name == "in rain" else 0):
            x, y = self._air.uniform(0, self.width), self._air.uniform(0, 1)
            self.line([(x, y), (x - 0.015, y + 0.05)], (206, 216, 226), 0.004)
        for _ in range(110 if self.light.name == "in winter" else 0):
            self._dot(self._air.uniform(0, self.width), self._air.uniform(0, 1), 0.007, (255, 255, 255))

    def fade(self, top: float, bottom: float, first: Colour, last: Colour) -> None:
        """A vertical fade over the whole width, from `top` to `bottom`; its colours are taken as they are."""
        y0, y1 = self._px(top), self._px(bottom)
        steps = np.linspace(0, 1, max(y1 - y0, 1))[:, None]
        rows = (np.array(first) * (1 - steps) + np.array(last) * steps).astype(np.uint8)
        band = np.repeat(rows[:, None, :], self._image.width, axis=1)
        self._image.paste(Image.fromarray(band, "RGB"), (0, y0))

    def ground(self, top: float, colour: Colour, deeper: float = 0.25) -> None:
        """Land or water from `top` to the lower edge, darker towards it."""
        lit = self.lit(colour)
        self.fade(top, 1, lit, mix(lit, (0, 0, 0), deeper))

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(self._px(x), self._px(y)) for x, y in points], fill=self.lit(colour))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        pixels = [(self._px(x), self._px(y)) for x, y in points]
        self._draw.line(pixels, fill=self.lit(colour), width=max(1, self._px(width)), joint="curve")

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """An ellipse by its centre and half axes."""
        box = [self._px(x - rx), self._px(y - ry), self._px(x + rx), self._px(y + ry)]
        self._draw.ellipse(box, fill=self.lit(colour))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        if x1 > x0 and y1 > y0:
            self._draw.rectangle(
                [self._px(x0), self._px(y0), self._px(x1), self._px(y1)], fill=self.lit(colour)
            )

    def glow(self, x: float, y: float, rx: float, ry: float) -> None:
        """A window: dark by day, warm at night."""
        colour = (
            (255, 214, 120) if self.light.stars or self.light.name == "at sunset" else self.lit((70, 80, 96))
        )
        self._draw.rectangle(
            [self._px(x - rx), self._px(y - ry), self._px(x + rx), self._px(y + ry)], fill=colour
        )

    def ridge(self, base: float, height: float, colour: Colour, peaks: int = 5, rough: float = 0.5) -> None:
        """A chain of hills along the whole width: their foot at `base`, about `height` tall."""
        xs = np.linspace(-0.1, self.width + 0.1, peaks * 8)
        shift, second = self.chance.uniform(0, 6), self.chance.uniform(0, 6)
        wave = (
            0.6
            + 0.4 * np.sin(xs / self.width * peaks * 2.2 + shift)
            + rough * 0.3 * np.sin(xs * peaks * 4 + second)
        )
        points = [(float(x), float(base - height * max(0.0, w))) for x, w in zip(xs, wave, strict=True)]
        self.poly([(-0.1, 1.0), *points, (self.width + 0.1, 1.0)], colour)

    def finish(self) -> Image.Image:
        """The picture, scaled down to its size."""
        return self._image.resize(self.size, Image.Resampling.LANCZOS)

    def _px(self, value: float) -> int:
        return round(value * self._unit)

    def _dot(self, x: float, y: float, r: float, colour: Colour) -> None:
        self._draw.ellipse([self._px(x - r), self._px(y - r), self._px(x + r), self._px(y + r)], fill=colour)

    def _cloud(self, x: float, y: float) -> None:
        colour = mix(self.light.low, (255, 255, 255), 0.55)
        for dx, dy, r in (
            (-0.08, 0.01, 0.035),
            (-0.03, -0.015, 0.05),
            (0.03, -0.005, 0.045),
            (0.08, 0.012, 0.03),
        ):
            box = [x + dx - r * 1.4, y + dy - r * 0.7, x + dx + r * 1.4, y + dy + r * 0.7]
            self._draw.ellipse([self._px(v) for v in box], fill=colour)
