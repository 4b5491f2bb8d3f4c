"""Diffusion in the worker's own process, by any diffusers pipeline that the settings name.

Invariants: the same request seed gives the same image; guidance acts, because a negative prompt is always
passed where the pipeline takes one (without it diffusers' Qwen-Image turns guidance off with no more than a
warning); a request that is cancelled or past its deadline stops between two steps, and the pipeline stays
usable; one call at a time per process (pipelines hold state).
"""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import JsonValue

from workers import images
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.providers.image.diffusers_loading import load
from workers.providers.made import Made
from workers.settings import ImageModelSettings

PROVIDER = "diffusers"
STEP = 16  # widths and heights are multiples of this: 8 for the autoencoder, 2 for its patches
REFERENCE_STEP = 32  # what Qwen's edit pipelines round the sides of a reference to

_lock = threading.Lock()


def generate(
    prompt: str,
    settings: ImageModelSettings,
    *,
    seed: int,
    deadline: float,
    cancelled: Callable[[], bool] = lambda: False,
) -> Made:
    """An image for `prompt`. Raises `InfrastructureFault`, of cause TIMEOUT when `deadline` (Unix seconds)
    passes between steps, of cause CANCELLED when `cancelled` says so.
    """
    width, height = pixel_size(settings.size)
    stop = partial(_stop, deadline, cancelled)
    return _call(settings, seed, stop, prompt=prompt, width=width, height=height)


def edit(
    prompt: str,
    picture: Image.Image,
    settings: ImageModelSettings,
    *,
    seed: int,
    deadline: float,
    cancelled: Callable[[], bool] = lambda: False,
) -> Made:
    """`picture` (RGB) changed as `prompt` says: its own proportions, about the pixels of `settings.size`.
    Raises as `generate` does.
    """
    width, height = pixel_size(settings.size)
    ratio = picture.width / picture.height
    sides = (math.sqrt(width * height * ratio), math.sqrt(width * height / ratio))
    width, height = (max(STEP, round(side / STEP) * STEP) for side in sides)
    stop = partial(_stop, deadline, cancelled)
    return _call(settings, seed, stop, prompt=prompt, image=picture, width=width, height=height)


def pixel_size(size: str) -> tuple[int, int]:
    """Width and height of "1024x768". Raises `ConfigError` for other forms and for sides that are no multiple
    of 16.
    """
    sides = size.split("x")
    known = len(sides) == 2 and all(side.isdecimal() and len(side) < 6 for side in sides)
    width, height = map(int, sides) if known else (0, 0)
    if not width or not height or width % STEP or height % STEP:
        raise ConfigError(
            f"size: {size!r} must be like 1024x768, both multiples of {STEP}, for provider diffusers"
        )
    return width, height


def guidance_options(pipeline: Any, settings: ImageModelSettings) -> dict[str, Any]:
    """The guidance scale under the name by which this pipeline really guides, and the negative prompt beside
    it.

    Qwen-Image guides by `true_cfg_scale`; its `guidance_scale`, if any, defaults to None and is for distilled
    models. Others (Flux, Z-Image) guide by a `guidance_scale` with a number for a default.
    """
    known = inspect.signature(pipeline.__call__).parameters
    plain = known.get("guidance_scale")
    options: dict[str, Any] = {}
    if "true_cfg_scale" in known and (plain is None or plain.default is None):
        options["true_cfg_scale"] = settings.guidance
    elif plain is not None:
        options["guidance_scale"] = settings.guidance
    if "negative_prompt" in known:
        options["negative_prompt"] = settings.negative_prompt
    return options


def _stop(deadline: float, cancelled: Callable[[], bool], step: int) -> None:
    """Raises `InfrastructureFault` when the job is to end after `step`."""
    if time.time() >= deadline:
        raise InfrastructureFault(Cause.TIMEOUT, f"its time was over at step {step}", provider=PROVIDER)
    if cancelled():
        raise InfrastructureFault(Cause.CANCELLED, f"cancelled at step {step}", provider=PROVIDER)


def _call(settings: ImageModelSettings, seed: int, stop: Callable[[int], None], **arguments: Any) -> Made:
    import torch

    def after_step(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        stop(step + 1)
        return kept

    with _lock:
        pipeline = load(settings)
        # A generator on the CPU: the same seed gives the same noise on every device.
        generator = torch.Generator("cpu").manual_seed(seed % 2**63)
        try:
            with _references_within(pipeline, arguments["width"] * arguments["height"]):
                result = pipeline(
                    **arguments,
                    **guidance_options(pipeline, settings),
                    num_inference_steps=settings.steps,
                    generator=generator,
                    callback_on_step_end=after_step,
                )
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise InfrastructureFault(Cause.PROVIDER_DOWN, "out of GPU memory", provider=PROVIDER) from error
    source: dict[str, JsonValue] = {
        "provider": PROVIDER,
        "model": Path(settings.model).name,
        "pipeline": settings.pipeline,
        "seed": seed,
        "steps": settings.steps,
    }
    return Made(images.encoded(result.images[0].convert("RGB")), source)


@contextlib.contextmanager
def _references_within(pipeline: Any, pixels: int) -> Iterator[None]:
    """References of about `pixels` at most. Qwen's edit pipelines scale each one to 1024² (and, for the text
    encoder, 384²) whatever is asked for: without this a small edit costs as much as a large one.

    They have no argument for it, but all of them ask `calculate_dimensions` of their own module, which also
    rounds the short side of a long strip down to nothing.
    """
    module = sys.modules[type(pipeline).__module__]
    stock = getattr(module, "calculate_dimensions", None)
    if stock is None:
        yield
        return

    def within(area: float, ratio: float) -> tuple[Any, ...]:
        width, height, *rest = stock(min(area, pixels), ratio)
        return max(REFERENCE_STEP, width), max(REFERENCE_STEP, height), *rest

    module.calculate_dimensions = within  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.calculate_dimensions = stock  # type: ignore[attr-defined]
