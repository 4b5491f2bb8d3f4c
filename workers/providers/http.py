"""Guarded fetching of URLs that came from outside: bounded, and never into our own network.

Invariants: only http and https, no credentials in the URL; redirects are followed here, hop by hop, and each
hop is checked; the address that was checked is the address that is connected to (the resolver hands aiohttp
only addresses that passed, so a second look-up cannot point elsewhere); bytes and total time are bounded
whatever the server does. Base URLs of providers come from the user's configuration and are trusted: see
`workers.providers.api`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from workers.errors import Cause, InfrastructureFault
from workers.providers.addresses import is_public

REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; llmi/0.1)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}

# Own threads: asyncio.run waits for those of the default executor, and a look-up that hangs must not outlast
# a deadline.
_LOOKUPS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="lookup")
T = TypeVar("T")


@dataclass(frozen=True)
class FetchLimits:
    """`timeout_s` bounds the whole fetch, redirects included."""

    max_bytes: int = 32 * 2**20
    timeout_s: float = 15.0
    max_redirects: int = 4


DEFAULT_LIMITS = FetchLimits()


class Refused(InfrastructureFault):
    """A URL that must not be fetched."""

    def __init__(self, why: str):
        super().__init__(Cause.BAD_ANSWER, f"URL refused: {why}")


class Resolver(AbstractResolver):
    """Looks names up in threads and lets through only public addresses, unless `allow_private`."""

    def __init__(self, allow_private: bool):
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(_LOOKUPS, _look_up, host, port, family)
        results = [
            ResolveResult(
                hostname=host,
                host=str(sockaddr[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, sockaddr in found
            if self._allow_private or is_public(str(sockaddr[0]))
        ]
        if not results:
            raise Refused(f"{host} is not in the public Internet")
        return results

    async def close(self) -> None:
        """Nothing is held."""


def _look_up(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)


def guarded_session(*, allow_private: bool = False) -> aiohttp.ClientSession:
    """A session for `fetch`: no proxy from the environment, no cookies, no transparent decompression."""
    connector = aiohttp.TCPConnector(resolver=Resolver(allow_private), use_dns_cache=False, limit=16)
    return aiohttp.ClientSession(
        connector=connector,
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    )


def check_url(url: str, *, allow_private: bool) -> URL:
    """The URL parsed, if its form may be fetched. Raises `Refused`. Addresses of names are checked when
    resolved.
    """
    try:
        parsed = URL(url)
        host, _ = parsed.host, parsed.port
    except ValueError as error:
        raise Refused("not a URL") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise Refused(f"scheme {parsed.scheme or 'none'!r} is not http or https")
    if parsed.user is not None or parsed.password is not None:
        raise Refused("it holds credentials")
    # aiohttp does not ask the resolver about what looks like an address, of which `is_public` refuses every
    # notation but the usual ones (2130706433, 0177.0.0.1).
    if not allow_private and looks_like_address(host) and not is_public(host):
        raise Refused(f"{host} is not in the public Internet")
    return parsed


def looks_like_address(host: str) -> bool:
    """Whether a URL's host is an IP address, or numbers that the system's own look-up may take for one."""
    return ":" in host or host.replace(".", "").isdigit()


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    *,
    deadline: float,
    allow_private: bool = False,
    limits: FetchLimits = DEFAULT_LIMITS,
) -> bytes:
    """The body at `url`, at most `limits.max_bytes`, before `deadline` (Unix seconds).

    `session` comes from `guarded_session` with the same `allow_private`. Raises `Refused` (a `BAD_ANSWER`)
    for a URL that must not be fetched, `InfrastructureFault(PROVIDER_DOWN)` when the host fails or is slow,
    `BAD_ANSWER` for a status other than 200 or too many bytes.
    """
    try:
        async with asyncio.timeout(min(limits.timeout_s, deadline - time.time())):
            return await _follow(session, url, allow_private, limits)
    except TimeoutError as error:
        raise InfrastructureFault(Cause.PROVIDER_DOWN, "the image's host took too long") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise InfrastructureFault(
            Cause.PROVIDER_DOWN, f"the image's host failed: {type(error).__name__}"
        ) from error


async def _follow(
    session: aiohttp.ClientSession, url: str, allow_private: bool, limits: FetchLimits
) -> bytes:
    target = check_url(url, allow_private=allow_private)
    for _ in range(limits.max_redirects + 1):
        async with session.get(target, allow_redirects=False) as response:
            if response.status in REDIRECTS and "Location" in response.headers:
                step = target.join(URL(response.headers["Location"]))
                target = check_url(str(step), allow_private=allow_private)
                continue
            if response.status != 200:
                cause = Cause.PROVIDER_DOWN if response.status >= 500 else Cause.BAD_ANSWER
                raise InfrastructureFault(cause, f"the image's host answered {response.status}")
            return await read_bounded(response, limits.max_bytes)
    raise Refused("too many redirects")


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


def run_until(deadline: float, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` from a job's thread until done. Raises `InfrastructureFault(TIMEOUT)` at `deadline` (Unix
    seconds).
    """

    async def bounded() -> T:
        async with asyncio.timeout(deadline - time.time()):
            return await work

    try:
        return asyncio.run(bounded())
    except TimeoutError as error:
        raise InfrastructureFault(Cause.TIMEOUT, "the deadline passed while a provider worked") from error
