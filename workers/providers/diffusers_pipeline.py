"""Diffusion in the worker's own process: any diffusers pipeline named in the settings, loaded once and kept
warm.

Invariants: the same request seed gives the same image; guidance acts, because a negative prompt is always
passed where the pipeline takes one (without it diffusers' Qwen-Image turns guidance off with no more than a
warning); a request past its deadline stops between two steps; one call at a time per process (pipelines hold
state). Pipelines of one model, device and dtype share their modules, so an edit pipeline beside its diffusion
pipeline costs no second copy.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import JsonValue

from workers import images
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.providers import pil_processor
from workers.providers.made import Made
from workers.settings import ImageModelSettings

logger = logging.getLogger(__name__)

PROVIDER = "diffusers"
# Below this many parameters a second CPU thread costs more than it gives, and much more on a busy machine.
SMALL = 50_000_000
STEP = 16  # widths and heights are multiples of this: 8 for the autoencoder, 2 for its patches
REFERENCE_STEP = 32  # what Qwen's edit pipelines round the sides of a reference to

_lock = threading.RLock()
_loaded: dict[tuple[str, str, str], dict[str, Any]] = {}


def load(settings: ImageModelSettings) -> Any:
    """The pipeline of `settings`, loaded on the first call. Raises `ConfigError` naming the field that is
    wrong.
    """
    device, dtype = _placement(settings)
    with _lock:
        family = _loaded.setdefault((settings.model, device, dtype), {})
        if settings.pipeline not in family:
            family[settings.pipeline] = _open(settings, device, dtype, family)
        return family[settings.pipeline]


def generate(prompt: str, settings: ImageModelSettings, *, seed: int, deadline: float) -> Made:
    """An image for `prompt`. Raises `InfrastructureFault(TIMEOUT)` when `deadline` (Unix seconds) passes
    between steps.
    """
    width, height = pixel_size(settings.size)
    return _call(settings, seed, deadline, prompt=prompt, width=width, height=height)


def edit(
    prompt: str, picture: Image.Image, settings: ImageModelSettings, *, seed: int, deadline: float
) -> Made:
    """`picture` (RGB) changed as `prompt` says: its own proportions, about the pixels of `settings.size`."""
    width, height = pixel_size(settings.size)
    ratio = picture.width / picture.height
    sides = (math.sqrt(width * height * ratio), math.sqrt(width * height / ratio))
    width, height = (max(STEP, round(side / STEP) * STEP) for side in sides)
    return _call(settings, seed, deadline, prompt=prompt, image=picture, width=width, height=height)


def pixel_size(size: str) -> tuple[int, int]:
    """Width and height of "1024x768". Raises `ConfigError` for other forms and for sides that are no multiple
    of 16.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    width, height = (int(side) for side in match.groups()) if match else (0, 0)
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


def _call(settings: ImageModelSettings, seed: int, deadline: float, **arguments: Any) -> Made:
    import torch

    def stop_in_time(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        if time.time() >= deadline:
            raise InfrastructureFault(
                Cause.TIMEOUT, f"the deadline passed at step {step + 1}", provider=PROVIDER
            )
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
                    callback_on_step_end=stop_in_time,
                )
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise InfrastructureFault(Cause.PROVIDER_DOWN, "out of GPU memory", provider=PROVIDER) from error
    source: dict[str, JsonValue] = {
        "provider": PROVIDER,
        "model": Path(settings.model).name,
        "pipeline": settings.pipeline,
        "seed": seed,
    }
    return Made(images.encoded(result.images[0].convert("RGB")), source)


def _placement(settings: ImageModelSettings) -> tuple[str, str]:
    """Device and dtype by name: the GPU in bfloat16 when there is one, else the CPU in float32."""
    device = settings.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    return device, dtype


def _open(settings: ImageModelSettings, device: str, dtype: str, family: dict[str, Any]) -> Any:
    import diffusers
    import torch
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    kind = getattr(diffusers, settings.pipeline, None)
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise ConfigError(f"pipeline: diffusers {diffusers.__version__} has no {settings.pipeline}")
    started = time.monotonic()
    own = _own_processor(kind)
    if family:
        relative = next(iter(family.values()))
        extra = (
            {}
            if not _wants_processor(kind)
            else {"processor": _processor(settings.model, relative.tokenizer)}
        )
        pipeline = kind.from_pipe(relative, dtype=getattr(torch, dtype), **extra)
    else:
        try:
            pipeline = kind.from_pretrained(settings.model, dtype=getattr(torch, dtype), **own)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model: {settings.model} cannot be loaded as {settings.pipeline}: {error}"
            ) from error
        if own:
            pipeline.register_modules(processor=_processor(settings.model, pipeline.tokenizer))
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    if device == "cpu" and _parameters(pipeline) < SMALL:
        torch.set_num_threads(1)
    logger.info(
        "%s of %s on %s in %.1f s", settings.pipeline, settings.model, device, time.monotonic() - started
    )
    return pipeline


def _parameters(pipeline: Any) -> int:
    parts = (part for part in pipeline.components.values() if hasattr(part, "parameters"))
    return sum(weights.numel() for part in parts for weights in part.parameters())


def _wants_processor(kind: Any) -> bool:
    return "processor" in inspect.signature(kind.__init__).parameters


def _own_processor(kind: Any) -> dict[str, None]:
    """What keeps from_pretrained from loading transformers' processor, where that one cannot work."""
    return {"processor": None} if _wants_processor(kind) and not pil_processor.torchvision_works() else {}


def _processor(model: str, tokenizer: Any) -> Any:
    if not pil_processor.torchvision_works():
        return pil_processor.PilProcessor.load(model, tokenizer)
    from transformers import Qwen2VLProcessor

    if Path(model).is_dir():
        return Qwen2VLProcessor.from_pretrained(str(Path(model) / "processor"))
    return Qwen2VLProcessor.from_pretrained(model, subfolder="processor")


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
