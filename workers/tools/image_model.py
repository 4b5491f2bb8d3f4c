"""What the diffusion and the edit tool share: the configured provider makes a picture, the store keeps it."""

from __future__ import annotations

from typing import Any, Literal

from workers import images
from workers.errors import Cause, ModelFault
from workers.jobs import JobContext
from workers.messages import BlobRef, Success
from workers.providers.http import keys
from workers.providers.image import diffusers_loading, diffusers_pipeline, openai_images, qwen_server
from workers.providers.image.control_tokens import inert
from workers.settings import ImageModelSettings, ToolSettings, section

PROVIDERS = {"diffusers": diffusers_pipeline, "openai": openai_images, "qwen_server": qwen_server}
Tool = Literal["diffusion", "edit"]


def warm(tool: Tool) -> None:
    """Load the pipeline, where it is ours to load, and start a decoder for what comes from elsewhere."""
    settings = _settings(tool)
    if settings.provider == "diffusers":
        diffusers_loading.load(settings)
    if settings.provider != "diffusers":
        images.warm("outside")
    if tool == "edit":
        images.warm("store")


def outside(tool: Tool) -> str:
    """The service that makes the pictures, "" where a pipeline of our own does."""
    settings = _settings(tool)
    if settings.provider == "qwen_server":
        env = keys.GENERATE_URL_ENV if tool == "diffusion" else keys.EDIT_URL_ENV
        return keys.service(settings.provider, keys.qwen_url(settings, env))
    return keys.service(settings.provider, settings.base_url) if settings.provider == "openai" else ""


def make(tool: Tool, prompt: str, ctx: JobContext, picture: BlobRef | None = None) -> Success:
    """A picture made from `prompt`, or `picture` changed by it. The request's seed makes it repeatable.

    Raises `ModelFault(BAD_PARAMS)` for a blank prompt, and what the provider raises.
    """
    if not prompt.strip():
        raise ModelFault(Cause.BAD_PARAMS, "the prompt is empty")
    settings = _settings(tool)
    provider = PROVIDERS[settings.provider]
    options: dict[str, Any] = {"seed": ctx.request.seed, "deadline": ctx.deadline}
    if settings.provider == "diffusers":  # a service cannot be stopped on its way
        options["cancelled"] = ctx.cancelled
    words = inert(prompt)
    if picture is None:
        made = provider.generate(words, settings, **options)
    else:
        made = provider.edit(words, images.rgb(ctx.blobs.get(picture)), settings, **options)
    return Success(images=(ctx.blobs.put(made.image),), source={**made.source, "prompt": prompt})


def _settings(tool: Tool) -> ImageModelSettings:
    tools = section("tools", ToolSettings)
    return tools.diffusion if tool == "diffusion" else tools.edit
