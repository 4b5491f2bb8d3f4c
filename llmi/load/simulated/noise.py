"""Pictures of noise, which pass the validation of images: they have contrast and detail."""

from __future__ import annotations

import io
from random import Random

SIDE = 64  # pixels


def noise_png(seed: str) -> bytes:
    """A PNG of `SIDE` x `SIDE` pixels that follows from `seed`."""
    from PIL import Image

    file = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), Random(seed).randbytes(3 * SIDE * SIDE)).save(file, "PNG")
    return file.getvalue()
