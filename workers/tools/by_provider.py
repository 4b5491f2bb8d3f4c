"""Search, diffusion and edit: the configured provider makes the image, the blob store keeps it.

Invariant: every image of the store can be edited; palettes and transparency (every chart) are flattened on
white first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers import images
from workers.errors import Cause, ModelFault
from workers.jobs import JobContext, job
from workers.messages import BlobRef, DiffusionPayload, EditPayload, SearchPayload, Success
from workers.providers.provider import ProviderRequest
from workers.providers.registry import configured
from workers.text.control_tokens import inert


def _hooks(tool: str) -> dict[str, Callable[[], Any]]:
    """Keyword arguments of `job`: how to warm the tool, the name of its service, whether it holds a model."""

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


@job("search", SearchPayload, **_hooks("search"))
def search(payload: SearchPayload, ctx: JobContext) -> Success:
    """An existing image for the query, and its source. Raises what `_make` raises."""
    return _make("search", payload.query, ctx)


@job("diffusion", DiffusionPayload, **_hooks("diffusion"))
def diffusion(payload: DiffusionPayload, ctx: JobContext) -> Success:
    """A new image for the prompt. Raises what `_make` raises."""
    return _make("diffusion", payload.prompt, ctx)


@job("edit", EditPayload, **_hooks("edit"))
def edit(payload: EditPayload, ctx: JobContext) -> Success:
    """The payload's image, changed as its prompt says. Raises what `_make` raises."""
    made = _make("edit", payload.prompt, ctx, payload.image)
    return made.model_copy(update={"source": {**made.source, "edited": payload.image.sha256}})


def _make(tool: str, text: str, ctx: JobContext, picture: BlobRef | None = None) -> Success:
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
