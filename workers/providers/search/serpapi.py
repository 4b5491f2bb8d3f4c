"""Google Images through SerpAPI: `GET {base_url}/search?engine=google_images`, then the first result that is
an image.

Invariants:
- Results whose title shares a word with the query are tried before the others (a title may be in another
  language), within each group by rank. The next one starts when the one before failed or is slow; the first
  good image cancels the others.
- URLs of results are fetched only through the guard (`workers.providers.http.client`).

Faults: no result is the model's (NO_HIT), and so is a query that SerpAPI refuses (400, since all else in the
request is constant: PROMPT_REFUSED). When no image of the results can be fetched, it is an infrastructure
failure, but not the provider's, which answered: HOST_DOWN when a host failed, was slow or unreachable,
BAD_ANSWER when every host answered without an image. Neither counts as a failure of the provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from workers import event_loop, images, pixels
from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.providers.http import api, keys
from workers.providers.http.client import FetchLimits, fetch, guarded_session
from workers.providers.http.endpoint import address_problems, key_problems
from workers.providers.provider import Provider, ProviderImage, ProviderRequest
from workers.settings import SearchSettings
from workers.text import full_text

NAME = "serpapi"
TRY_TIMEOUT_S = 20.0
LIMITS = FetchLimits(max_bytes=pixels.DEFAULT_LIMITS.max_bytes, timeout_s=10.0)
# Parts of the error of a search without a result; its status is 200.
NOTHING = ("returned any results", "no results", "did not match any")
DECODING_AT_ONCE = 2  # decoders that one search may use, so that some stay free for other searches
HEAD_START_S = 1.5  # seconds before the next result is tried in parallel


class Result(BaseModel):
    """The fields used of one entry of `images_results`. `original` may be missing."""

    model_config = ConfigDict(extra="ignore")

    original: str | None = None
    thumbnail: str | None = None
    title: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class Candidate:
    """One URL to try, of the result with this `rank` (from 0)."""

    url: str
    rank: int
    result: Result


class SerpApi(Provider[SearchSettings]):
    """SerpAPI at `tools.search.base_url`. Its key is in the environment variable SERP_API_KEY."""

    environment = (keys.SERP_KEY_ENV,)

    @classmethod
    def defaults(cls, tool: str) -> Mapping[str, Any]:
        return {"base_url": "https://serpapi.com"}

    def service(self) -> str:
        return keys.service_name(NAME, self.settings.base_url)

    def check(self) -> list[str]:
        return [
            *address_problems(f"{self.field}.base_url", self.settings.base_url),
            *key_problems(f"{self.field}.provider", keys.SERP_KEY_ENV),
        ]

    def warm(self) -> None:
        keys.required_key(keys.SERP_KEY_ENV, NAME)

    def call(self, request: ProviderRequest) -> ProviderImage:
        """The best usable image. Raises `ModelFault`, NO_HIT for a search without results and PROMPT_REFUSED
        for a query that is refused.
        """
        key = keys.required_key(keys.SERP_KEY_ENV, NAME)
        searching = _search(request.text, self.settings, key, request.deadline)
        return event_loop.run(searching, request.deadline, request.cancelled)


PROVIDER = SerpApi


async def _search(query: str, settings: SearchSettings, key: str, deadline: float) -> ProviderImage:
    call = api.Call(
        provider=NAME,
        method="GET",
        url=f"{settings.base_url.rstrip('/')}/search",
        params={"engine": "google_images", "q": query, "api_key": key},
        key=key,
        deadline=deadline,
        try_timeout_s=TRY_TIMEOUT_S,
        only_content=True,
        model_text=query,
    )
    ranked = candidates(call, await api.send(call), query, settings.max_candidates)
    try:
        async with asyncio.timeout(deadline - time.time()):
            made = await _first_good(ranked, settings, deadline)
    except TimeoutError as error:
        detail = "no picture of a result arrived before the deadline"
        raise InfrastructureFault(Cause.HOST_DOWN, detail) from error
    source = {name: keys.redacted(v, key) if isinstance(v, str) else v for name, v in made.source.items()}
    return ProviderImage(made.image, source)


def candidates(call: api.Call, answer: api.Answer, query: str, limit: int) -> list[Candidate]:
    """The URLs to try, in order: of the `limit` best results, those whose title shares a word with `query`
    before the others; of each group the originals (a thumbnail where there is none), then other thumbnails.

    Raises `ModelFault(NO_HIT)` without results, `InfrastructureFault(BAD_ANSWER)` for another shape.
    """
    entries = answer.get("images_results")
    if entries is None and "error" in answer:
        if any(words in call.redacted(answer["error"]).lower() for words in NOTHING):
            raise ModelFault(Cause.NO_HIT, "the search found nothing", provider=NAME)
        raise api.refused(call, 200, answer)
    if not isinstance(entries, list):
        raise InfrastructureFault(Cause.BAD_ANSWER, "images_results is not a list", provider=NAME)
    try:
        results = [Result.model_validate(entry) for entry in entries]
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InfrastructureFault(Cause.BAD_ANSWER, f"images_results: {where}", provider=NAME) from error
    usable = [result for result in results if result.original or result.thumbnail]
    if not usable:
        raise ModelFault(Cause.NO_HIT, "the search found nothing", provider=NAME)
    named = full_text.matching(query, [result.title or "" for result in usable])
    ranked = sorted(enumerate(usable), key=lambda entry: entry[0] not in named)[:limit]
    return [
        *_urls([(rank, result) for rank, result in ranked if rank in named]),
        *_urls([(rank, result) for rank, result in ranked if rank not in named]),
    ]


def _urls(ranked: list[tuple[int, Result]]) -> list[Candidate]:
    first = [Candidate(r.original or r.thumbnail or "", rank, r) for rank, r in ranked]
    last = [Candidate(r.thumbnail, rank, r) for rank, r in ranked if r.original and r.thumbnail]
    return first + last


async def _first_good(ranked: list[Candidate], settings: SearchSettings, deadline: float) -> ProviderImage:
    failures: list[InfrastructureFault] = []
    decoding = asyncio.Semaphore(DECODING_AT_ONCE)
    async with (
        guarded_session(allow_private=settings.allow_private_addresses) as session,
        _cancelled_at_end() as running,
    ):
        waiting = iter(ranked)
        upcoming = next(waiting, None)
        while upcoming or running:
            if upcoming:
                running.append(asyncio.create_task(_obtain(session, upcoming, settings, deadline, decoding)))
                upcoming = next(waiting, None)
            done, _ = await asyncio.wait(
                running, timeout=HEAD_START_S if upcoming else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [one for one in running if one in done]:  # by rank when two are done
                running.remove(task)
                try:
                    return task.result()
                except InfrastructureFault as error:
                    failures.append(error)
    raise _combined(failures)


def _combined(failures: list[InfrastructureFault]) -> InfrastructureFault:
    """Combine the failures of all results into one: causes of this worker come before those of hosts."""
    causes = {error.cause for error in failures}
    specific = [cause for cause in (Cause.SANDBOX, Cause.TIMEOUT, Cause.HOST_DOWN) if cause in causes]
    detail = f"no result could be fetched; the last failure: {failures[-1].detail}"
    if specific:
        return InfrastructureFault(specific[0], detail)
    return InfrastructureFault(Cause.BAD_ANSWER, detail, provider=NAME)


@contextlib.asynccontextmanager
async def _cancelled_at_end() -> AsyncIterator[list[asyncio.Task[ProviderImage]]]:
    """A list of tasks that are cancelled and awaited when the block ends."""
    tasks: list[asyncio.Task[ProviderImage]] = []
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _obtain(
    session: aiohttp.ClientSession,
    candidate: Candidate,
    settings: SearchSettings,
    deadline: float,
    decoding: asyncio.Semaphore,
) -> ProviderImage:
    data = await fetch(
        session,
        candidate.url,
        deadline=deadline,
        allow_private=settings.allow_private_addresses,
        trust_proxy=settings.trust_proxy,
        limits=LIMITS,
    )
    async with decoding:
        image = await images.checked_async(data, provider=NAME)
    return ProviderImage(
        image,
        {
            "provider": NAME,
            "url": candidate.url,
            "page": candidate.result.link or "",
            "title": candidate.result.title or "",
            "rank": candidate.rank,
        },
    )
