"""The edit tool: an image and a prompt in, the changed image out.

Invariant: whatever is in the store can be edited; palettes and transparency (every chart) are flattened on
white first.
"""

from __future__ import annotations

from workers import images
from workers.errors import Cause, ModelFault
from workers.jobs import JobContext, job
from workers.messages import EditPayload, Success
from workers.providers import diffusers_pipeline, openai_images, qwen_server
from workers.settings import ToolSettings, section

PROVIDERS = {
    "diffusers": diffusers_pipeline.edit,
    "openai": openai_images.edit,
    "qwen_server": qwen_server.edit,
}


def warm() -> None:
    """Load the pipeline, where it is ours to load."""
    settings = section("tools", ToolSettings).edit
    if settings.provider == "diffusers":
        diffusers_pipeline.load(settings)


@job("edit", EditPayload, warm=warm)
def edit(payload: EditPayload, ctx: JobContext) -> Success:
    """Edit with the configured provider and store the picture. The request's seed makes it repeatable."""
    if not payload.prompt.strip():
        raise ModelFault(Cause.BAD_PARAMS, "the prompt is empty")
    settings = section("tools", ToolSettings).edit
    picture = images.rgb(ctx.blobs.get(payload.image))
    made = PROVIDERS[settings.provider](
        payload.prompt, picture, settings, seed=ctx.request.seed, deadline=ctx.request.deadline
    )
    source = {**made.source, "prompt": payload.prompt, "edited": payload.image.sha256}
    return Success(images=(ctx.blobs.put(made.image),), source=source)
