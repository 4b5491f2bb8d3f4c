"""Images as pixels: their limits, scaling, and encoding. Nothing is decoded here; see `workers.images`."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

from PIL import Image

JPEG_QUALITY = 92
MAX_ASPECT = 100  # vision-language models refuse a side 200 times the other (Qwen2.5-VL's processor)


@dataclass(frozen=True)
class ImageLimits:
    """`max_bytes`: as received. `max_pixels`: as the header claims. `min_side`, `max_side`: in pixels, after
    scaling.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    min_side: int = 8
    max_side: int = 2048


DEFAULT_LIMITS = ImageLimits()


def is_too_small(width: int, height: int, limits: ImageLimits = DEFAULT_LIMITS) -> bool:
    """Whether a side is too short for judges and models: in pixels, or relative to the other side."""
    return min(width, height) < limits.min_side or max(width, height) > MAX_ASPECT * min(width, height)


def scaled_down(
    image: Image.Image, max_pixels: int, resample: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """`image`, or a smaller one of the same proportions with at most `max_pixels` pixels."""
    scale = math.sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, resample)


def flattened(image: Image.Image) -> Image.Image:
    """Any mode to RGB. Transparent pixels become white: JPEG cannot hold the RGBA of a chart."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGB", layer.size, "white")
    ground.paste(layer, mask=layer.getchannel("A"))
    return ground


def encoded(image: Image.Image, *, lossy: bool = False) -> bytes:
    """PNG bytes, or JPEG bytes (flattened on white) when `lossy`; never any metadata."""
    buffer = io.BytesIO()
    if lossy:
        flattened(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    """`data:image/png;base64,...` of an image."""
    return "data:image/png;base64," + base64.b64encode(encoded(image)).decode()
