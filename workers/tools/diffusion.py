"""The diffusion tool: a prompt in, one generated image out."""

from __future__ import annotations

from workers.jobs import JobContext, job
from workers.messages import DiffusionPayload, Success
from workers.tools.by_provider import hooks, make


@job("diffusion", DiffusionPayload, **hooks("diffusion"))
def diffusion(payload: DiffusionPayload, ctx: JobContext) -> Success:
    """Generate with the configured provider and store the image. Raises `ModelFault(BAD_PARAMS)` for a blank
    prompt, and what the provider raises.
    """
    return make("diffusion", payload.prompt, ctx)
