"""Which HTTP proxy a request to an outside service goes through, as the environment says: HTTPS_PROXY,
HTTP_PROXY, ALL_PROXY, NO_PROXY.

Invariants: internal hosts are never requested through a proxy, whatever the environment says: loopback,
private addresses, this machine's networks, names without a dot or of a cluster, and names that resolve to
such an address here; a proxy's password is never shown. The variables are read as curl reads them: lower case
wins, `NO_PROXY` lists suffixes of names, `host:port`, addresses and networks (`203.0.113.0/24`), or `*`.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import socket
import time
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from aiohttp.abc import AbstractResolver
from yarl import URL

from workers.providers.http.addresses import is_public

logger = logging.getLogger(__name__)
INSIDE = (".local", ".localhost", ".internal", ".svc", ".lan", ".home.arpa", ".intranet", ".corp")
CHOOSE_S = 8.0  # for a name to resolve here; longer means that this machine does not resolve such names
REMEMBERED_S = 60.0  # how long the choice between proxy and direct connection reuses a resolved name
_resolved: dict[str, tuple[float, tuple[str, ...]]] = {}


def from_environment(url: str) -> URL | None:
    """The proxy that the environment names for `url`; None without one, and for hosts whose name or address
    is internal.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        return None  # not a URL; the client reports it
    proxies = getproxies_environment()
    value = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not value or _inside(host) or _excepted(host, port, proxies.get("no", "")):
        return None
    return _parsed(value)


async def route(url: str, resolver: AbstractResolver) -> URL | None:
    """The proxy that a request to `url` goes through, None for a direct connection. It may contain user and
    password, as aiohttp takes them.

    `resolver` lets every address through. A name that it cannot resolve is resolved by the proxy.
    """
    proxy = from_environment(url)
    if proxy is None:
        return None
    no_proxy = getproxies_environment().get("no", "")
    for address in await _addresses(urlsplit(url).hostname or "", resolver):
        if not is_public(address) or _excepted(address, None, no_proxy):
            return None
    return proxy


def redacted(proxy: URL) -> str:
    """The proxy without user and password."""
    return str(proxy.with_user(None))


def _inside(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(INSIDE)
    return not is_public(host)


def _excepted(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether an entry of NO_PROXY names the host."""
    entries = no_proxy.replace(",", " ").split()
    if "*" in entries or any(_in_network(host, entry) for entry in entries):
        return True
    entries = [entry.removeprefix("*") for entry in entries]
    where = f"{host}:{port}" if port and ":" not in host else host
    return proxy_bypass(where, {"no": ",".join(entries)})


def _in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of them is a name
        return False


@functools.lru_cache(maxsize=16)
def _parsed(value: str) -> URL | None:
    try:
        proxy = URL(value if "://" in value else f"http://{value}")
        usable = proxy.scheme in ("http", "https") and bool(proxy.host)
    except ValueError:
        usable = False
    if usable:
        return proxy
    scheme = value.partition("://")[0] if "://" in value else "it"
    logger.warning("a proxy of the environment is not used: %s is no http:// or https:// proxy", scheme)
    return None


async def _addresses(host: str, resolver: AbstractResolver) -> tuple[str, ...]:
    """Those of `host` as resolved here, none where it cannot be."""
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        pass
    now = time.monotonic()
    if host in _resolved and now - _resolved[host][0] < REMEMBERED_S:
        return _resolved[host][1]
    try:
        async with asyncio.timeout(CHOOSE_S):
            found = tuple(one["host"] for one in await resolver.resolve(host, 0, socket.AF_UNSPEC))
    except OSError:  # or a TimeoutError, which is one
        found = ()
    _resolved[host] = (now, found)
    return found
