"""Search, diffusion and edit: the configured provider makes the image, the blob store keeps it.

Invariants:
- every image of the store can be edited; palettes and transparency (every chart) are flattened on white
  first;
- the source of a found or generated image has its `fingerprint`, and that of an edit says if the picture is
  `unchanged`, so that rewards count repeats without decoding an image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from pydantic import JsonValue

from workers import fingerprint, images
from workers.errors import Cause, ModelFault
from workers.jobs import JobContext, job
from workers.messages import DiffusionPayload, EditPayload, SearchPayload, Success
from workers.providers.provider import ProviderImage, ProviderRequest
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
    return _new("search", payload.query, ctx)


@job("diffusion", DiffusionPayload, **_hooks("diffusion"))
def diffusion(payload: DiffusionPayload, ctx: JobContext) -> Success:
    """A new image for the prompt. Raises what `_make` raises."""
    return _new("diffusion", payload.prompt, ctx)


@job("edit", EditPayload, **_hooks("edit"))
def edit(payload: EditPayload, ctx: JobContext) -> Success:
    """The payload's image, changed as its prompt says. Raises what `_make` raises."""
    _require_text("edit", payload.prompt)
    before = images.rgb(ctx.blobs.get(payload.image))
    made = _make("edit", payload.prompt, ctx, before)
    stored = ctx.blobs.put(made.image)
    source: dict[str, JsonValue] = {
        **made.source,
        "prompt": payload.prompt,
        "edited": payload.image.sha256,
    }
    if fingerprint.unchanged(before, made.image):
        source["unchanged"] = True
    return Success(images=(stored,), source=source)


def _new(tool: str, text: str, ctx: JobContext) -> Success:
    """An image for `text`, which is the query of a search, else a prompt."""
    made = _make(tool, text, ctx)
    stored = ctx.blobs.put(made.image)
    source: dict[str, JsonValue] = {**made.source, _name(tool): text}
    if found := fingerprint.of_encoded(made.image):
        source["fingerprint"] = found
    return Success(images=(stored,), source=source)


def _name(tool: str) -> str:
    return "query" if tool == "search" else "prompt"


def _make(tool: str, text: str, ctx: JobContext, picture: Image.Image | None = None) -> ProviderImage:
    """The image for `text`, or `picture` changed by it.

    Raises `ModelFault(BAD_PARAMS)` for a blank text, and what the provider raises.
    """
    _require_text(tool, text)
    request = ProviderRequest(
        text=text if tool == "search" else inert(text),
        deadline=ctx.deadline,
        seed=ctx.request.seed,
        image=picture,
        cancelled=ctx.cancelled,
    )
    return configured(tool).call(request)


def _require_text(tool: str, text: str) -> None:
    if not text.strip():
        raise ModelFault(Cause.BAD_PARAMS, f"the {_name(tool)} is empty")
