"""Load the diffusers pipelines of the settings, once per process.

Invariant: pipelines of one model, device and dtype share their modules, so that an edit pipeline next to its
diffusion pipeline needs no second copy.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from pathlib import Path
from typing import Any

from workers.errors import ConfigError
from workers.providers.pipelines import pil_processor
from workers.settings import ImageModelSettings

logger = logging.getLogger(__name__)

# Below this many parameters a second CPU thread makes a pipeline slower, above all on a busy machine.
SMALL = 50_000_000

_lock = threading.Lock()
_loaded: dict[tuple[str, str, str], dict[str, Any]] = {}


def load(settings: ImageModelSettings) -> Any:
    """The pipeline of `settings`, loaded on the first call. Raises `ConfigError` that names the field."""
    device, dtype = _placement(settings)
    with _lock:
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
    own = _own_processor(kind)
    if family:
        relative = next(iter(family.values()))
        extra = (
            {"processor": _processor(settings.model, relative.tokenizer)} if _wants_processor(kind) else {}
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
    """Arguments that keep from_pretrained from loading transformers' processor where it cannot work."""
    return {"processor": None} if _wants_processor(kind) and not pil_processor.torchvision_works() else {}


def _processor(model: str, tokenizer: Any) -> Any:
    if not pil_processor.torchvision_works():
        return pil_processor.PilProcessor.load(model, tokenizer)
    from transformers import Qwen2VLProcessor

    if Path(model).is_dir():
        return Qwen2VLProcessor.from_pretrained(str(Path(model) / "processor"))
    return Qwen2VLProcessor.from_pretrained(model, subfolder="processor")
