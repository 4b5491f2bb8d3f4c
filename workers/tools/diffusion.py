"""The diffusion tool: a prompt in, one generated picture out."""

from __future__ import annotations

from functools import partial

from workers.jobs import JobContext, job
from workers.messages import DiffusionPayload, Success
from workers.tools import image_model


@job(
    "diffusion",
    DiffusionPayload,
    warm=partial(image_model.warm, "diffusion"),
    provider=partial(image_model.outside, "diffusion"),
)
def diffusion(payload: DiffusionPayload, ctx: JobContext) -> Success:
    """Generate with the configured provider and store the picture."""
    return image_model.make("diffusion", payload.prompt, ctx)
