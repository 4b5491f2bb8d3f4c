"""The search tool: a query in, one existing image and its source out."""

from __future__ import annotations

from workers.jobs import JobContext, job
from workers.messages import SearchPayload, Success
from workers.tools.by_provider import hooks, make


@job("search", SearchPayload, **hooks("search"))
def search(payload: SearchPayload, ctx: JobContext) -> Success:
    """Search with the configured provider and store the image. Raises `ModelFault(BAD_PARAMS)` for a blank
    query, and what the provider raises.
    """
    return make("search", payload.query, ctx)
