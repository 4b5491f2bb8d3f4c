"""Whole scenes with their captions: a city by its landmark, or an animal in a place, each in some light."""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image

from llmi.demo.drawn.animals import ANIMALS, Pen
from llmi.demo.drawn.canvas import LIGHTS, Canvas
from llmi.demo.drawn.landmarks import CITIES
from llmi.demo.drawn.places import PLACES

NEAR = 0.45  # share of the light's tint that a subject in the foreground takes


@dataclass(frozen=True)
class Scene:
    """`subject` is a city or an animal; `place` is empty for a city; `light` is a key of `LIGHTS`."""

    subject: str
    place: str
    light: str

    @property
    def caption(self) -> str:
        if self.subject in CITIES:
            return f"{CITIES[self.subject][0]}, a landmark in {self.subject}, {self.light}"
        article = "an" if self.place[0] in "aeiou" else "a"
        return f"{ANIMALS[self.subject][0]} in {article} {self.place} {self.light}"


def every_animal() -> list[tuple[str, str]]:
    """All pairs of animal and place."""
    return [(animal, place) for animal in ANIMALS for place in PLACES]


def every_city() -> list[tuple[str, str]]:
    """All pairs of city and light."""
    return [(city, light) for city in CITIES for light in LIGHTS]


def draw(scene: Scene, size: tuple[int, int], seed: int) -> Image.Image:
    """The scene as an RGB image of `size` (width, height in pixels); the same arguments give the same pixels.

    Another light changes colours and sky only, not the layout.
    """
    canvas = Canvas(size, LIGHTS[scene.light], f"{scene.subject} {scene.place} {seed}")
    if scene.subject in CITIES:
        CITIES[scene.subject][1](canvas)
    else:
        PLACES[scene.place](canvas)
        # The subject stands near: less haze, less darkness.
        canvas.light = replace(canvas.light, strength=canvas.light.strength * NEAR)
        x = canvas.width / 2 + canvas.chance.uniform(-0.05, 0.05)
        ANIMALS[scene.subject][1](Pen(canvas, x, 0.93, canvas.chance.uniform(0.42, 0.5)))
    canvas.weather()
    return canvas.finish()
