"""The edit tool: an image and a prompt in, the changed image out.

Invariant: every image of the store can be edited; palettes and transparency (every chart) are flattened on
white first.
"""

from __future__ import annotations

from workers.jobs import JobContext, job
from workers.messages import EditPayload, Success
from workers.tools.by_provider import hooks, make


@job("edit", EditPayload, **hooks("edit"))
def edit(payload: EditPayload, ctx: JobContext) -> Success:
    """Edit with the configured provider and store the image. Raises what `make` raises."""
    made = make("edit", payload.prompt, ctx, payload.image)
    return made.model_copy(update={"source": {**made.source, "edited": payload.image.sha256}})
