"""The image gate: untrusted bytes in, a small sound PNG or JPEG out.

Invariants: the limits on bytes and pixels are checked before anything is decoded; the type is taken from the
bytes and must be on the list (no SVG, no TIFF, no PDF); only the first frame is kept, turned as its EXIF
says, without metadata; what leaves the gate was decoded to its last row and encoded anew. Everything refused
is `InfrastructureFault(BAD_ANSWER)`: whoever answered with it, it was not the model being trained.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps

from workers.errors import Cause, InfrastructureFault

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
JPEG_QUALITY = 92


@dataclass(frozen=True)
class ImageLimits:
    """Bytes as received, pixels as the header claims, smallest and largest side in pixels after the gate."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    min_side: int = 8
    max_side: int = 2048


DEFAULT_LIMITS = ImageLimits()


def checked(data: bytes, *, provider: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The image in `data`, decoded, cleaned and encoded anew.

    Lossy photographs (JPEG, opaque WebP) become JPEG, everything else PNG; sides over `max_side` are scaled
    down. Raises `InfrastructureFault(BAD_ANSWER)` for what is too large, no image, truncated or of a type not
    listed.
    """
    image, lossy = _decode(data, provider, limits)
    return encoded(image, lossy=lossy)


def rgb(data: bytes, *, provider: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image in `data` as RGB, transparency flattened on white: what every edit model can read."""
    return flattened(_decode(data, provider, limits)[0])


def flattened(image: Image.Image) -> Image.Image:
    """Any mode to RGB; transparent pixels become white (RGBA charts cannot be encoded as JPEG otherwise)."""
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


def from_base64(text: str, *, provider: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Bytes of a base64 string or a `data:image/...;base64,` URI; not yet checked to be an image."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    if len(payload) > limits.max_bytes * 4 // 3 + 4:
        raise _refused(f"base64 of {len(payload)} characters is over the limit of bytes", provider)
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"not base64: {error}", provider) from error


def data_uri(image: Image.Image) -> str:
    """`data:image/png;base64,...` of an image."""
    return "data:image/png;base64," + base64.b64encode(encoded(image)).decode()


def _decode(data: bytes, provider: str, limits: ImageLimits) -> tuple[Image.Image, bool]:
    """The first frame in a plain mode, and whether it came from a lossy photograph."""
    if not data:
        raise _refused("no bytes", provider)
    if len(data) > limits.max_bytes:
        raise _refused(f"{len(data)} bytes are over the limit of {limits.max_bytes}", provider)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as source:
                width, height = source.size
                if width * height > limits.max_pixels:
                    raise _refused(f"{width}x{height} pixels are over the limit", provider)
                if min(width, height) < limits.min_side:
                    raise _refused(f"{width}x{height} pixels are too few to be a picture", provider)
                lossy = source.format == "JPEG" or (source.format == "WEBP" and source.mode == "RGB")
                source.load()
                image = _plain(ImageOps.exif_transpose(source))
    except InfrastructureFault:
        raise
    except Exception as error:
        raise _refused(f"not a readable image: {type(error).__name__}: {error}"[:300], provider) from error
    image.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS)
    image.info.clear()
    return image, lossy


def _plain(image: Image.Image) -> Image.Image:
    """L, RGB or RGBA, whatever came: palettes, grey with alpha, CMYK, 1 and 16 bits."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I") or image.mode == "F":
        # 16 and 32 bits: convert() would clip to white, so the range is mapped instead.
        low, high = image.convert("F").getextrema()
        scale = 255.0 / max(float(high) - float(low), 1e-6)  # type: ignore[arg-type]
        return image.convert("F").point(lambda v: v * scale - float(low) * scale).convert("L")  # type: ignore[arg-type]
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _refused(why: str, provider: str) -> InfrastructureFault:
    return InfrastructureFault(Cause.BAD_ANSWER, f"image refused: {why}", provider=provider)
