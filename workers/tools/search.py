"""The search tool: a query in, one real picture and where it is from out."""

from __future__ import annotations

from pathlib import Path

from workers import images
from workers.errors import Cause, ModelFault
from workers.jobs import JobContext, job
from workers.messages import SearchPayload, Success
from workers.providers.http import keys
from workers.providers.search import library, serpapi
from workers.settings import ToolSettings, section

PROVIDERS = {"library": library.search, "serpapi": serpapi.search}


def warm() -> None:
    """Open the library's index, or find the key, and start a decoder before the first request. Raises when
    the provider is not usable.
    """
    settings = section("tools", ToolSettings).search
    if settings.provider == "library":
        library.ensure_index(Path(settings.library))
    else:
        keys.required(keys.SERP_KEY_ENV, serpapi.PROVIDER)
    images.warm("outside")


def outside() -> str:
    """The service that searches, "" where the library does."""
    settings = section("tools", ToolSettings).search
    return keys.service(serpapi.PROVIDER, settings.base_url) if settings.provider == "serpapi" else ""


@job("search", SearchPayload, warm=warm, provider=outside)
def search(payload: SearchPayload, ctx: JobContext) -> Success:
    """Search with the configured provider and store what it found."""
    if not payload.query.strip():
        raise ModelFault(Cause.BAD_PARAMS, "the query is empty")
    settings = section("tools", ToolSettings).search
    made = PROVIDERS[settings.provider](payload.query, settings, deadline=ctx.deadline)
    return Success(images=(ctx.blobs.put(made.image),), source={**made.source, "query": payload.query})
