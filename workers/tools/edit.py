"""The edit tool: an image and a prompt in, the changed image out.

Invariant: whatever is in the store can be edited; palettes and transparency (every chart) are flattened on
white first.
"""

from __future__ import annotations

from functools import partial

from workers.jobs import JobContext, job
from workers.messages import EditPayload, Success
from workers.tools import image_model


@job(
    "edit",
    EditPayload,
    warm=partial(image_model.warm, "edit"),
    provider=partial(image_model.outside, "edit"),
)
def edit(payload: EditPayload, ctx: JobContext) -> Success:
    """Edit with the configured provider and store the picture."""
    made = image_model.make("edit", payload.prompt, ctx, payload.image)
    return made.model_copy(update={"source": {**made.source, "edited": payload.image.sha256}})
