"""Builds the project's own image library: drawn, captioned pictures of cities and animals.

Invariants: the same seed gives the same bytes; the folder appears whole or not at all; a folder that this
module did not make is never touched.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

from llmi.demo import drawn
from llmi.demo.cached_folder import cached_folder
from llmi.demo.drawn.canvas import LIGHTS
from llmi.demo.drawn.scenes import Scene, draw, every_animal, every_city
from workers import pixels
from workers.providers.search import library

SIZE = (192, 144)
ORIGIN = "the built-in image library (drawn by llmi)"


def build_library(
    folder: Path, seed: int = 0, progress: Callable[[float], None] = lambda share: None
) -> Path:
    """Return `folder` with the library; draw it first (some seconds) if it is missing.

    128 pictures: 8 cities in 8 lights, 8 animals in 8 places. `progress` gets the share done, from 0 to 1.
    Raises `ConfigError` when the folder holds something else.
    """
    return cached_folder(folder, _manifest(seed), lambda part: _fill(part, seed, progress))


def scenes(seed: int) -> list[Scene]:
    """The scenes of the library: each city in each light, each animal in each place (in a light by seed)."""
    chance = random.Random(seed)
    lights = list(LIGHTS)
    cities = [Scene(city, "", light) for city, light in every_city()]
    animals = [Scene(animal, place, chance.choice(lights)) for animal, place in every_animal()]
    return cities + animals


def _fill(folder: Path, seed: int, progress: Callable[[float], None]) -> None:
    folder.mkdir()
    lines, shown = [], scenes(seed)
    for number, scene in enumerate(shown):
        progress(number / len(shown))
        name = f"{number:03d}.png"
        (folder / name).write_bytes(pixels.encoded(draw(scene, SIZE, seed)))
        lines.append(
            json.dumps({"file": name, "caption": scene.caption, "origin": ORIGIN}, ensure_ascii=False)
        )
    (folder / library.CAPTIONS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    library.ensure_index(folder)


def _manifest(seed: int) -> dict[str, object]:
    """The seed and a hash over the code that draws: another version of it draws another library."""
    code = hashlib.sha256()
    for path in sorted(Path(str(drawn.__file__)).parent.glob("*.py")):
        code.update(path.read_bytes())
    code.update(Path(__file__).read_bytes())
    return {"library": "llmi", "seed": seed, "drawn_by": code.hexdigest()}
