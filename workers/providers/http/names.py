"""Name resolution without threads: c-ares, by aiodns.

A look-up is cancelled with its caller. c-ares reads /etc/hosts and /etc/resolv.conf, and no other source of
names that the system may know (mDNS, LDAP).

Invariant: names that a page chose have a resolver of their own, so that they never delay those of the user's
configuration.
"""

from __future__ import annotations

import asyncio
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver

from workers.event_loop import PerLoop
from workers.providers.http.addresses import is_public
from workers.providers.http.urls import Refused

SERVER_TIMEOUT_S = 2.0  # until c-ares asks the next name server, or the same again; it grows
TRIES = 3  # of each name server
RESOLVE_S = 8.0  # for one name
TRUSTED_RESOLVE_S = 20.0
NAMES_AT_ONCE = 6  # look-ups that one session of untrusted names may have in progress


def _make() -> AsyncResolver:
    # With options of its own, aiohttp does not share it with other sessions of the loop.
    return AsyncResolver(timeout=SERVER_TIMEOUT_S, tries=TRIES)


_trusted = PerLoop(_make, AsyncResolver.close)
_untrusted = PerLoop(_make, AsyncResolver.close)


class Resolver(AbstractResolver):
    """Resolves names, for a bounded time, and lets through only public addresses.

    allow_private: lets every address through.
    trusted: the names are from the user's own configuration. Of others, one instance resolves
        `NAMES_AT_ONCE` at a time; more fail.
    """

    def __init__(self, allow_private: bool, *, trusted: bool = False):
        self._allow_private = allow_private
        self._trusted = trusted
        self._in_progress = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if not self._trusted and self._in_progress >= NAMES_AT_ONCE:
            raise socket.gaierror(socket.EAI_AGAIN, "too many names before it are still being resolved")
        self._in_progress += 1
        try:
            found = await self._found(host, port, family)
        finally:
            self._in_progress -= 1
        results = [one for one in found if self._allow_private or is_public(one["host"])]
        if not results:
            raise Refused(f"{host} is not in the public Internet")
        return results

    async def _found(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        resolver = await (_trusted if self._trusted else _untrusted).get()
        limit_s = TRUSTED_RESOLVE_S if self._trusted else RESOLVE_S
        try:
            async with asyncio.timeout(limit_s):
                return await resolver.resolve(host, port, family)
        except TimeoutError as error:
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer in {limit_s:g} s") from error

    async def close(self) -> None:
        """Nothing to close: the resolver belongs to the loop."""
