"""The image gate: untrusted bytes in, a small sound PNG or JPEG out.

Invariants: whatever comes to the gate is decoded in the jail (`workers.sandbox.decoders`), in a process of
its own with bounded memory, CPU and time, and only its pixels come back; the limits on bytes and pixels are
checked before anything is decoded; only the first frame is kept, turned as its EXIF says; what leaves the
gate was encoded here, from pixels, and so holds nothing else of what came in. Everything refused is
`InfrastructureFault(BAD_ANSWER)`: whoever answered with it, it was not the model being trained.

The line: `checked` is for bytes from outside (search, image services, a dataset, a benchmark, a user's file
or library), `rgb` for those of the blob store, which others may write to. Both decode in the jail, each with
decoders of its own, so that slow pictures from outside do not delay judges, which read the store. What this
process drew or encoded itself needs neither.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import decoders

JPEG_QUALITY = 92
MOST_OBLONG = 100  # vision-language models refuse a side 200 times the other (Qwen2.5-VL's processor)
# Own threads: asyncio.run waits for those of the default executor, and a picture that takes long must not
# outlast a deadline. What waits for one of them is given up with its task.
_WAITING: dict[decoders.Origin, ThreadPoolExecutor] = {
    "outside": ThreadPoolExecutor(decoders.AT_ONCE, "decode-outside"),
    "store": ThreadPoolExecutor(decoders.AT_ONCE, "decode-store"),
}
T = TypeVar("T")


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
    down. Blocking. Raises `InfrastructureFault(BAD_ANSWER)` for what is too large, no image, truncated, of a
    type not listed, or more than a decoder may take.
    """
    image, lossy = _decode(data, "outside", provider, limits)
    if no_picture(image.width, image.height, limits):
        raise _refused(f"{image.width}x{image.height} pixels are no picture", provider)
    return encoded(image, lossy=lossy)


def no_picture(width: int, height: int, limits: ImageLimits = DEFAULT_LIMITS) -> bool:
    """Whether a side is too short for judges and models to see anything: in pixels, or beside the other."""
    return min(width, height) < limits.min_side or max(width, height) > MOST_OBLONG * min(width, height)


async def checked_aside(data: bytes, *, provider: str) -> bytes:
    """`checked`, off the event loop."""
    return await aside("outside", functools.partial(checked, data, provider=provider))


async def aside(origin: decoders.Origin, work: Callable[[], T]) -> T:
    """Run `work`, which decodes pictures of `origin`, in a thread for such pictures."""
    return await asyncio.get_running_loop().run_in_executor(_WAITING[origin], work)


def warm(*origins: decoders.Origin) -> None:
    """Start a decoder of each origin before the first image. Raises `InfrastructureFault(SANDBOX)` when it
    cannot start.
    """
    for origin in origins:
        decoders.of_this_process(origin).warm()


def rgb(data: bytes, *, provider: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image in `data` as RGB, transparency flattened on white: what every edit model can read."""
    return flattened(_decode(data, "store", provider, limits)[0])


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


def _decode(data: bytes, origin: decoders.Origin, provider: str, limits: ImageLimits) -> decoders.Decoded:
    if not data:
        raise _refused("no bytes", provider)
    if len(data) > limits.max_bytes:
        raise _refused(f"{len(data)} bytes are over the limit of {limits.max_bytes}", provider)
    order = decoders.DecodeOptions(limits.max_pixels, limits.min_side, limits.max_side)
    try:
        return decoders.of_this_process(origin).decode(data, order)
    except InfrastructureFault as error:
        if error.cause is not Cause.BAD_ANSWER:
            raise
        raise _refused(error.detail, provider) from error


def _refused(why: str, provider: str) -> InfrastructureFault:
    return InfrastructureFault(Cause.BAD_ANSWER, f"image refused: {why}", provider=provider)
