"""Decoding of untrusted images: bytes in, pixels or a re-encoded PNG or JPEG out.

Invariants:
- Every image is decoded in the jail (`workers.sandbox.decoders`), in a process of its own with limits on
  memory, CPU and time. Only its pixels come back.
- Limits on bytes and pixels are checked before anything is decoded.
- Only the first frame is kept, rotated as its EXIF says. What is returned was encoded here, from pixels, so
  it holds no metadata.
- What is refused is an infrastructure failure (`bad_answer`): no image comes from the model being trained.

`checked` is for bytes from outside (search, image services, a dataset, a benchmark, a user's file or
library), `rgb` for those of the blob store, which others may write to. Each has decoders of its own, so that
slow images from outside do not delay judges, which read the store. What this process drew or encoded needs
neither.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from workers.errors import Cause, InfrastructureFault
from workers.pixels import DEFAULT_LIMITS, ImageLimits, encoded, flattened, is_too_small
from workers.sandbox import decoders

# Own threads for each origin: slow images from outside must not delay those of the store. A cancelled task
# stops waiting for a thread, which ends when its decoder answers or is killed.
_EXECUTORS: dict[decoders.Origin, ThreadPoolExecutor] = {
    "outside": ThreadPoolExecutor(decoders.AT_ONCE, "decode-outside"),
    "store": ThreadPoolExecutor(decoders.AT_ONCE, "decode-store"),
}
T = TypeVar("T")


def checked(data: bytes, *, provider: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The image in `data`, decoded and encoded again.

    Lossy photographs (JPEG, opaque WebP) become JPEG, everything else PNG; sides over `max_side` are scaled
    down. Blocking. Raises `InfrastructureFault(BAD_ANSWER)` for what is too large, no image, truncated, of a
    type not listed, or more than a decoder may take.
    """
    image, lossy = _decode(data, "outside", provider, limits)
    if is_too_small(image.width, image.height, limits):
        raise _refused(f"{image.width}x{image.height} pixels are too small or too narrow", provider)
    return encoded(image, lossy=lossy)


async def checked_async(data: bytes, *, provider: str) -> bytes:
    """`checked`, off the event loop."""
    return await decode_in_thread("outside", functools.partial(checked, data, provider=provider))


async def decode_in_thread(origin: decoders.Origin, work: Callable[[], T]) -> T:
    """Run `work`, which decodes images of `origin`, in a thread for such images."""
    return await asyncio.get_running_loop().run_in_executor(_EXECUTORS[origin], work)


def warm(*origins: decoders.Origin) -> None:
    """Start a decoder of each origin before the first image. Raises `InfrastructureFault(SANDBOX)` when it
    cannot start.
    """
    for origin in origins:
        decoders.of_this_process(origin).warm()


def rgb(data: bytes, *, provider: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image in `data` as RGB, transparency flattened on white: what every edit model can read."""
    return flattened(_decode(data, "store", provider, limits)[0])


def from_base64(text: str, *, provider: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Bytes of a base64 string or a `data:image/...;base64,` URI; not yet checked to be an image."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    if len(payload) > limits.max_bytes * 4 // 3 + 4:
        raise _refused(f"base64 of {len(payload)} characters is over the limit of bytes", provider)
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"not base64: {error}", provider) from error


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
