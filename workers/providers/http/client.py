"""Guarded fetching of URLs that came from outside: bounded, and never from an internal network.

Invariants: only http and https, on ports of the web, no credentials in the URL; redirects are followed here,
hop by hop, and each hop is checked; the connection, also by a proxy, goes to the address that was checked
(aiohttp gets only checked addresses from the resolver, so no second look-up can return another one); bytes
and total time are bounded whatever the server does; names and connections that a page chose are apart from
those of the user's configuration. Base URLs of providers are trusted, and share one session per event loop
(`connections`): see `workers.providers.http.api`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import ResolveResult
from yarl import URL

from workers.errors import Cause, InfrastructureFault
from workers.event_loop import PerLoop
from workers.providers.http import proxies
from workers.providers.http.names import Resolver
from workers.providers.http.urls import Refused, check_url, looks_like_address

REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; llmi/0.1)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}
KNOWN_S = 1.0  # seconds for a name that a trusted proxy can resolve if this machine cannot
# Less than the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request must not meet that.
KEEPALIVE_S = 4.0
CONNECT_S = 30.0


@dataclass(frozen=True)
class FetchLimits:
    """`timeout_s` bounds the whole fetch, redirects included."""

    max_bytes: int = 32 * 2**20
    timeout_s: float = 15.0
    max_redirects: int = 4


DEFAULT_LIMITS = FetchLimits()


def _make_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=Resolver(allow_private=True, trusted=True),
            use_dns_cache=False,  # c-ares has one, and aiohttp's goes on with a look-up that is cancelled
            keepalive_timeout=KEEPALIVE_S,
            limit=0,  # the slots of the worker's pool are the limit
        ),
        cookie_jar=aiohttp.DummyCookieJar(),  # calls with other keys share it
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),  # each call has its own limit
    )


_connections = PerLoop(_make_session, aiohttp.ClientSession.close)


async def connections() -> aiohttp.ClientSession:
    """The session of the running loop to addresses of the user's own configuration, which may be private. Do
    not close it.
    """
    return await _connections.get()


async def proxy_of(url: str) -> URL | None:
    """The proxy for a service of the user's own configuration, None for a direct connection."""
    return await proxies.route(url, Resolver(allow_private=True, trusted=True))


def guarded_session(*, allow_private: bool = False) -> aiohttp.ClientSession:
    """A session for `fetch`: no proxy unless `fetch` names it, no cookies, no transparent decompression."""
    connector = aiohttp.TCPConnector(resolver=Resolver(allow_private), use_dns_cache=False, limit=16)
    return aiohttp.ClientSession(
        connector=connector,
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    )


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    *,
    deadline: float,
    allow_private: bool = False,
    trust_proxy: bool = False,
    limits: FetchLimits = DEFAULT_LIMITS,
) -> bytes:
    """The body at `url`, at most `limits.max_bytes`, before `deadline` (Unix seconds).

    `session` comes from `guarded_session` with the same `allow_private`. Where the environment names a proxy,
    it is used for https only, and with the address that was checked here; with `trust_proxy` also for plain
    http, and for names that cannot be resolved here.

    Raises `Refused` (a `BAD_ANSWER`) for a URL that must not be fetched, `InfrastructureFault(HOST_DOWN)`
    when the host fails or is slow, `BAD_ANSWER` for a status other than 200 or too many bytes. No
    failure names a provider: the host of an image is not the service that named its URL.
    """
    try:
        async with asyncio.timeout(min(limits.timeout_s, deadline - time.time())):
            return await _follow(_Guard(session, allow_private, trust_proxy), url, limits)
    except TimeoutError as error:
        raise InfrastructureFault(Cause.HOST_DOWN, "the image's host took too long") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise InfrastructureFault(
            Cause.HOST_DOWN, f"the image's host failed: {type(error).__name__}"
        ) from error


async def _follow(guard: _Guard, url: str, limits: FetchLimits) -> bytes:
    target = check_url(url, allow_private=guard.allow_private)
    for _ in range(limits.max_redirects + 1):
        async with guard.get(target) as response:
            if response.status in REDIRECTS and "Location" in response.headers:
                step = target.join(URL(response.headers["Location"]))
                target = check_url(str(step), allow_private=guard.allow_private)
                continue
            if response.status != 200:
                cause = Cause.HOST_DOWN if response.status >= 500 else Cause.BAD_ANSWER
                raise InfrastructureFault(cause, f"the image's host answered {response.status}")
            return await read_bounded(response, limits.max_bytes)
    raise Refused("too many redirects")


@dataclass(frozen=True)
class _Guard:
    """How one hop is requested: on `session`, or through the proxy that the environment names."""

    session: aiohttp.ClientSession
    allow_private: bool
    trust_proxy: bool

    @contextlib.asynccontextmanager
    async def get(self, target: URL) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a URL that passed `check_url`; a redirect is not followed."""
        proxy = proxies.from_environment(str(target))
        if proxy is None:
            async with self.session.get(target, allow_redirects=False) as response:
                yield response
            return
        asked = await (self._named(target) if self.trust_proxy else self._pinned(target))
        # A session of its own: the proxy may be at a private address, and this connects to nothing else.
        async with (
            guarded_session(allow_private=True) as session,
            session.get(
                asked,
                proxy=proxy,
                headers={"Host": target.raw_authority},
                server_hostname=target.raw_host if target.scheme == "https" else None,
                allow_redirects=False,
            ) as response,
        ):
            yield response

    async def _pinned(self, target: URL) -> URL:
        """`target` with an address that was checked in place of its name, so that the proxy resolves nothing.
        Not for plain http, for which a proxy makes the Host header from the address.
        """
        if target.scheme != "https":
            raise Refused("through a proxy only https is fetched, unless trust_proxy is on")
        if looks_like_address(target.raw_host or ""):
            return target
        found = await self._resolved(target)
        first = min(found, key=lambda one: ":" in one["host"])  # IPv4 where there is: every proxy reaches it
        return target.with_host(first["host"])

    async def _named(self, target: URL) -> URL:
        """`target`, for a proxy that resolves its name. Raises `Refused` when the name resolves here to an
        address that is not public.
        """
        if not looks_like_address(target.raw_host or ""):
            with contextlib.suppress(OSError):
                async with asyncio.timeout(KNOWN_S):
                    await self._resolved(target)
        return target

    async def _resolved(self, target: URL) -> list[ResolveResult]:
        return await Resolver(self.allow_private).resolve(target.raw_host or "", target.port or 443)


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body, unless it is longer than `max_bytes`, declared or not."""
    if (response.content_length or 0) > max_bytes:
        raise InfrastructureFault(Cause.BAD_ANSWER, f"the answer is over {max_bytes} bytes")
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > max_bytes:
            raise InfrastructureFault(Cause.BAD_ANSWER, f"the answer is over {max_bytes} bytes")
    return bytes(body)
