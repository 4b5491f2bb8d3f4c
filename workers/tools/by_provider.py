"""The common part of search, diffusion and edit: a provider makes the image, the blob store keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers import images
from workers.errors import Cause, ModelFault
from workers.jobs import JobContext
from workers.messages import BlobRef, Success
from workers.providers.provider import ProviderRequest
from workers.providers.registry import configured
from workers.text.control_tokens import inert


def hooks(tool: str) -> dict[str, Callable[[], Any]]:
    """Keyword arguments of `workers.jobs.job` for a tool with a provider: how to warm it, the name of its
    service, whether it holds a model.
    """

    def warm() -> None:
        provider = configured(tool)
        provider.warm()
        if not provider.holds_model:
            images.warm("outside")  # the decoder of images from elsewhere
        if tool == "edit":
            images.warm("store")

    return {
        "warm": warm,
        "provider": lambda: configured(tool).service(),
        "holds_model": lambda: configured(tool).holds_model,
    }


def make(tool: str, text: str, ctx: JobContext, picture: BlobRef | None = None) -> Success:
    """The image for `text`, the query or the prompt, or `picture` changed by it.

    Raises `ModelFault(BAD_PARAMS)` for a blank text, and what the provider raises.
    """
    name = "query" if tool == "search" else "prompt"
    if not text.strip():
        raise ModelFault(Cause.BAD_PARAMS, f"the {name} is empty")
    request = ProviderRequest(
        text=text if tool == "search" else inert(text),
        deadline=ctx.deadline,
        seed=ctx.request.seed,
        image=images.rgb(ctx.blobs.get(picture)) if picture else None,
        cancelled=ctx.cancelled,
    )
    made = configured(tool).call(request)
    return Success(images=(ctx.blobs.put(made.image),), source={**made.source, name: text})
