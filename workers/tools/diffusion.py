"""The diffusion tool: a prompt in, one generated picture out."""

from __future__ import annotations

from workers.errors import Cause, ModelFault
from workers.jobs import JobContext, job
from workers.messages import DiffusionPayload, Success
from workers.providers import diffusers_pipeline, openai_images, qwen_server
from workers.settings import ToolSettings, section

PROVIDERS = {
    "diffusers": diffusers_pipeline.generate,
    "openai": openai_images.generate,
    "qwen_server": qwen_server.generate,
}


def warm() -> None:
    """Load the pipeline, where it is ours to load."""
    settings = section("tools", ToolSettings).diffusion
    if settings.provider == "diffusers":
        diffusers_pipeline.load(settings)


@job("diffusion", DiffusionPayload, warm=warm)
def diffusion(payload: DiffusionPayload, ctx: JobContext) -> Success:
    """Generate with the configured provider and store the picture. The request's seed makes it repeatable."""
    if not payload.prompt.strip():
        raise ModelFault(Cause.BAD_PARAMS, "the prompt is empty")
    settings = section("tools", ToolSettings).diffusion
    made = PROVIDERS[settings.provider](
        payload.prompt, settings, seed=ctx.request.seed, deadline=ctx.request.deadline
    )
    return Success(images=(ctx.blobs.put(made.image),), source={**made.source, "prompt": payload.prompt})
