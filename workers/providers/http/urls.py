"""Which untrusted URLs may be fetched, by their form alone.

Invariants: http and https, on web ports, without credentials; an address in any notation but the usual one is
refused, since resolvers accept more notations than `ipaddress`.
"""

from __future__ import annotations

import string

from yarl import URL

from workers.errors import Cause, InfrastructureFault
from workers.providers.http.addresses import is_public

WEB_PORTS = (80, 443)
FIRST_FREE_PORT = 1024  # below it are mail, shells, file servers: a GET may confuse them; none serves images


class Refused(InfrastructureFault):
    """A URL that must not be fetched."""

    def __init__(self, why: str):
        super().__init__(Cause.BAD_ANSWER, f"URL refused: {why}")


def check_url(url: str, *, allow_private: bool) -> URL:
    """The URL parsed, if its form may be fetched. Raises `Refused`. Addresses of names are checked when
    resolved.
    """
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError as error:
        raise Refused("not a URL") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise Refused(f"scheme {parsed.scheme or 'none'!r} is not http or https")
    if parsed.user is not None or parsed.password is not None:
        raise Refused("it holds credentials")
    # aiohttp passes what looks like an address to no resolver, so it is checked here. `is_public` refuses all
    # notations but the usual ones (2130706433, 0177.0.0.1).
    if not allow_private and looks_like_address(host) and not is_public(host):
        raise Refused(f"{host} is not in the public Internet")
    if not allow_private and not (port in WEB_PORTS or (port or 0) >= FIRST_FREE_PORT):
        raise Refused(f"port {port} is of another service than the web")
    return parsed


def looks_like_address(host: str) -> bool:
    """Whether a URL's host is an IP address, or numbers that a resolver, here or of a proxy, may read as one:
    decimal, octal or hexadecimal.
    """
    return ":" in host or all(map(_is_number, host.rstrip(".").split(".")))


def _is_number(part: str) -> bool:
    digits = part.lower().removeprefix("0x")
    return (
        not part
        or part.isdigit()
        or (digits != part.lower() and all(one in string.hexdigits for one in digits))
    )
