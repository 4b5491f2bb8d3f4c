"""Input images of the generated multimodal prompts.

Invariant: the same arguments give the same PNG bytes.
"""

from __future__ import annotations

import io
from random import Random

from llmi.demo.prompts.topics import Topic

SIZE = 84  # pixels, both ways: 3 x 3 vision tokens of 28 x 28
_PAINT = {"red": "#c0392b", "blue": "#2c5fb8", "green": "#2e8b57", "yellow": "#e1b12c"}
_SKIES = ("#dcecf7", "#f7ead8", "#e8e3f3", "#e2f0e4")


def draw_picture(topic: Topic, seed: int) -> bytes:
    """The thing of a multimodal topic on a plain ground, as PNG. `seed` chooses its place and size."""
    from PIL import Image, ImageDraw

    if topic.picture is None:
        raise ValueError(f"the topic {topic.phrase!r} has no picture")
    color, thing = topic.picture
    random = Random(seed)
    image = Image.new("RGB", (SIZE, SIZE), random.choice(_SKIES))
    draw = ImageDraw.Draw(image)
    ground = random.randint(58, 66)
    draw.rectangle((0, ground, SIZE, SIZE), fill="#b9a88c" if thing != "boat" else "#9cc3d5")
    x, half, paint = random.randint(30, 54), random.randint(14, 20), _PAINT[color]
    top = ground - 2 * half
    if thing == "house":
        draw.rectangle((x - half, top + half, x + half, ground), fill=paint)
        draw.polygon([(x - half - 4, top + half), (x, top - 4), (x + half + 4, top + half)], fill="#5d4037")
    elif thing == "tree":
        draw.rectangle((x - 3, ground - half, x + 3, ground), fill="#5d4037")
        draw.ellipse((x - half, top - 8, x + half, ground - half + 4), fill=paint)
    elif thing == "boat":
        hull = [(x - half - 6, ground - 6), (x + half + 6, ground - 6), (x + half, ground + 6)]
        draw.polygon([*hull, (x - half, ground + 6)], fill="#5d4037")
        draw.polygon([(x, top - 6), (x + half, ground - 10), (x, ground - 10)], fill=paint)
    else:
        draw.pieslice((x - 2 * half, top, x + 2 * half, 2 * ground - top), 180, 360, fill=paint)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
