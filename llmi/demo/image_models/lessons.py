"""The training data of the tiny diffusion weights: scenes, their styles and captions, as pictures."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from llmi.demo.drawn.canvas import LIGHTS
from llmi.demo.drawn.scenes import Scene, every_animal, every_city

SIDE = 64  # pixels
LIGHTS_PER_PAIR = 3
CHANGES = ("the same picture changed to {}", "make it {}", "show it {}")
# What a style does to a picture: colourfulness, brightness, side of its pixels.
STYLES: dict[str, tuple[float, float, int]] = {
    "watercolor": (0.8, 1.15, 1),
    "oil": (1.25, 0.95, 1),
    "pixel": (1.1, 1.0, 8),
    "charcoal": (0.0, 0.9, 1),
    "neon": (2.2, 0.8, 1),
    "pastel": (0.55, 1.3, 1),
}


@dataclass(frozen=True)
class Lesson:
    """A picture by its number, its prompt, and the number of the picture to edit (None: generate)."""

    target: int
    prompt: str
    origin: int | None = None


def texts() -> list[str]:
    """All words of the lessons."""
    chance = random.Random(0)
    prompts = [scene.caption for scene in scenes_of(chance)]
    return [*prompts, *(way.format("") for way in CHANGES), *STYLES, "painting of"]


def scenes_of(chance: random.Random) -> list[Scene]:
    lights = list(LIGHTS)
    animals = [
        Scene(a, p, light) for a, p in every_animal() for light in chance.sample(lights, LIGHTS_PER_PAIR)
    ]
    return [Scene(city, "", light) for city, light in every_city()] + animals


def make_lessons(scenes: list[Scene], styles: list[str], chance: random.Random) -> list[Lesson]:
    """Each scene by its caption, with and without its light; each styled one (numbered after the plain
    ones) as a painting in its style; and each scene as a change of the same scene in another light.
    """
    lessons = []
    for number, (scene, style) in enumerate(zip(scenes, styles, strict=True)):
        unlit = scene.caption.removesuffix(scene.light).rstrip(", ")
        lessons += [Lesson(number, scene.caption), Lesson(number, unlit)]
        subject = chance.choice([unlit, unlit, scene.caption])
        lessons += [Lesson(len(scenes) + number, f"{style} painting of {subject}")] * 2
    numbered = sorted(enumerate(scenes), key=lambda item: (item[1].subject, item[1].place))
    for _, group in itertools.groupby(numbered, key=lambda item: (item[1].subject, item[1].place)):
        members = [number for number, _ in group]
        for target in members:
            change = scenes[target].light.removeprefix("at ").removeprefix("in ")
            origin = chance.choice(members) + chance.choice([0, len(scenes)])
            lessons.append(Lesson(target, chance.choice(CHANGES).format(change), origin))
    return lessons


def styled_picture(image: Image.Image, style: str) -> Image.Image:
    colour, brightness, block = STYLES[style]
    if block > 1:
        image = image.resize((SIDE // block * 2, SIDE // block * 2), Image.Resampling.BOX)
        image = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    image = ImageEnhance.Color(image).enhance(colour)
    return ImageEnhance.Brightness(image).enhance(brightness)


def shapes(chance: random.Random) -> Image.Image:
    """Bars and discs on a plain ground: the autoencoder must also keep charts."""
    image = Image.new("RGB", (SIDE, SIDE), chance.choice(["white", "white", "lightgrey", "black"]))
    pen = ImageDraw.Draw(image)
    for _ in range(chance.randint(2, 7)):
        colour = tuple(chance.randrange(256) for _ in range(3))
        x, y = chance.randrange(SIDE), chance.randrange(SIDE)
        box = [x, y, x + chance.randint(3, 24), y + chance.randint(3, 32)]
        (pen.rectangle if chance.random() < 0.7 else pen.ellipse)(box, fill=colour)
    return image


def to_array(image: Image.Image) -> np.ndarray:
    """Channels first, one frame, -1 to 1, as the autoencoder takes it: (3, 1, SIDE, SIDE)."""
    return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)[:, None]
