"""Image generation in the worker's process, with any diffusers pipeline that the settings name.

Invariants:
- The same request seed gives the same image.
- Guidance has an effect: a negative prompt is passed to every pipeline that takes one. Without it, diffusers'
  Qwen-Image turns guidance off and only logs a warning.
- A request that is cancelled or past its deadline stops between two steps, and the pipeline stays usable.
- One call at a time per process, since pipelines hold state.
- A pipeline is loaded once per process. Pipelines of one model, device and dtype share their modules, so that
  an edit pipeline next to its diffusion pipeline needs no second copy.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from workers import pixels
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.providers.pipelines import pil_processor, source
from workers.providers.provider import Provider, ProviderImage, ProviderRequest
from workers.settings import ImageModelSettings

logger = logging.getLogger(__name__)
NAME = "diffusers"
EDIT_PIPELINE = "QwenImageEditPlusPipeline"
STEP = 16  # widths and heights are multiples of this: 8 for the autoencoder, 2 for its patches
REFERENCE_STEP = 32  # what Qwen's edit pipelines round the sides of a reference to

# Below this many parameters a second CPU thread makes a pipeline slower, above all on a busy machine.
SMALL = 50_000_000

_loading = threading.Lock()
_loaded: dict[tuple[str, str, str], dict[str, Any]] = {}  # by model, device and dtype, then by pipeline
_calling = threading.Lock()


class Diffusers(Provider[ImageModelSettings]):
    """The pipeline that the settings name, loaded once per process."""

    holds_model = True

    @classmethod
    def defaults(cls, tool: str) -> Mapping[str, Any]:
        pipeline = EDIT_PIPELINE if tool == "edit" else "QwenImagePipeline"
        return {"model": ".cache/tiny-image", "pipeline": pipeline}

    def check(self) -> list[str]:
        problems = []
        try:
            pixel_size(self.settings.size)
        except ConfigError as error:
            problems.append(f"{self.field}.{error}")
        model = self.settings.model
        if _is_path(model) and not (Path(model) / "model_index.json").is_file():
            problems.append(
                f"{self.field}.model: {model} holds no model_index.json; name a diffusers folder or a hub id"
            )
        if self.tool == "edit":
            problems += self._takes_an_image()
        return problems

    def _takes_an_image(self) -> list[str]:
        """The problem of an edit pipeline that takes no image: each edit would fail, and mask its sample."""
        taken = source.arguments(self.settings.pipeline)
        if taken is None or "image" in taken:
            return []
        return [
            f"{self.field}.pipeline: {self.settings.pipeline} takes no image; name one that does, such as "
            f"{EDIT_PIPELINE}"
        ]

    def warm(self) -> None:
        load(self.settings)

    def call(self, request: ProviderRequest) -> ProviderImage:
        """A new image of `settings.size`, or `request.image` changed: its own proportions, about the pixels
        of `settings.size`. Raises `InfrastructureFault` between two steps, TIMEOUT when the deadline has
        passed and CANCELLED when the request was cancelled.
        """
        width, height = pixel_size(self.settings.size)
        arguments: dict[str, Any] = {"prompt": request.text}
        if request.image is not None:
            ratio = request.image.width / request.image.height
            sides = (math.sqrt(width * height * ratio), math.sqrt(width * height / ratio))
            width, height = (max(STEP, round(side / STEP) * STEP) for side in sides)
            arguments["image"] = request.image
        stop = partial(_stop, request.deadline, request.cancelled)
        return _call(self.settings, request.seed, stop, **arguments, width=width, height=height)


PROVIDER = Diffusers


def _is_path(model: str) -> bool:
    """Whether `model` is a folder and not a hub id (`owner/name`): it exists, or begins like a path."""
    return Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") != 1


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


def load(settings: ImageModelSettings) -> Any:
    """The pipeline of `settings`, loaded on the first call. Raises `ConfigError` that names the field."""
    device, dtype = _placement(settings)
    with _loading:
        family = _loaded.setdefault((settings.model, device, dtype), {})
        if settings.pipeline not in family:
            family[settings.pipeline] = _open(settings, device, dtype, family)
        return family[settings.pipeline]


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
    takes_processor = "processor" in inspect.signature(kind.__init__).parameters
    if family:
        relative = next(iter(family.values()))
        extra = (
            {"processor": pil_processor.load(settings.model, relative.tokenizer)} if takes_processor else {}
        )
        pipeline = kind.from_pipe(relative, dtype=getattr(torch, dtype), **extra)
    else:
        # transformers' own processor is not loaded where it cannot work.
        own = {"processor": None} if takes_processor and not pil_processor.torchvision_works() else {}
        try:
            pipeline = kind.from_pretrained(settings.model, dtype=getattr(torch, dtype), **own)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model: {settings.model} cannot be loaded as {settings.pipeline}: {error}"
            ) from error
        if own:
            pipeline.register_modules(processor=pil_processor.load(settings.model, pipeline.tokenizer))
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    parts = (part for part in pipeline.components.values() if hasattr(part, "parameters"))
    if device == "cpu" and sum(weights.numel() for part in parts for weights in part.parameters()) < SMALL:
        torch.set_num_threads(1)
    logger.info(
        "%s of %s on %s in %.1f s", settings.pipeline, settings.model, device, time.monotonic() - started
    )
    return pipeline


def guidance_options(pipeline: Any, settings: ImageModelSettings) -> dict[str, Any]:
    """The guidance scale under the argument that has an effect in this pipeline, and the negative prompt.

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
    """Raise `InfrastructureFault` when the job must end after `step`."""
    if time.time() >= deadline:
        raise InfrastructureFault(Cause.TIMEOUT, f"the deadline passed at step {step}", provider=NAME)
    if cancelled():
        raise InfrastructureFault(Cause.CANCELLED, f"cancelled at step {step}", provider=NAME)


def _call(
    settings: ImageModelSettings, seed: int, stop: Callable[[int], None], **arguments: Any
) -> ProviderImage:
    import torch

    def after_step(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        stop(step + 1)
        return kept

    with _calling:
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
            raise InfrastructureFault(Cause.PROVIDER_DOWN, "out of GPU memory", provider=NAME) from error
    shown: dict[str, JsonValue] = {
        "provider": NAME,
        "model": Path(settings.model).name,
        "pipeline": settings.pipeline,
        "seed": seed,
        "steps": settings.steps,
    }
    return ProviderImage(pixels.encoded(result.images[0].convert("RGB")), shown)


@contextlib.contextmanager
def _references_within(pipeline: Any, pixels: int) -> Iterator[None]:
    """Scale reference images to about `pixels` at most.

    Qwen's edit pipelines scale each one to 1024² (and to 384² for the text encoder), so that a small edit
    costs as much as a large one. They have no argument for it, but all call `calculate_dimensions` of their
    module, which also rounds the short side of a long strip down to 0. diffusers 0.42.1; `test_diffusers`
    (`the_reference_is_no_larger_than_the_edit`) fails when this has no effect.
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
