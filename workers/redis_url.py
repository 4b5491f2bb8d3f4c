"""The canonical form of a Redis URL, which has the same meaning for every client of the queue.

redis-py, kombu and Celery's result backend parse URLs differently: `redis://host?db=3` is database 3 to
redis-py and 0 to kombu, kombu does not know `unix:///x.sock`, and redis-py ignores a database that is not a
number. `canonical` rewrites what can be written so that all three agree, and refuses anything else.

Invariant: no error message holds a part of the URL that may be a password.
"""

from __future__ import annotations

import os
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

FORM = "redis://[[user]:password@]host[:port][/database], or rediss:// for TLS"
PORT = 6379
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = (*TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_SOCKET = (
    "a socket file is not supported, since other machines cannot reach it; let the server listen on a port "
    "and write redis://127.0.0.1:6379/0"
)
_SENTINEL = "Sentinel is not supported; write the address of the primary: redis://host:6379/0"
_UNSUPPORTED = {
    **dict.fromkeys(("unix", "socket", "redis+socket"), _SOCKET),
    **dict.fromkeys(("sentinel", "redis+sentinel"), _SENTINEL),
    "redis+cluster": "Redis Cluster is not supported; write the address of a single server",
}
_ENCODE = "percent-encode special characters in a password"


def canonical(url: str) -> str:
    """Return `url` as scheme, user, password, host, port and database number, each percent-encoded.

    For rediss:// it states whether certificates are verified (default: yes), since Celery's default is not
    to. Raises `ValueError` with the form to write.
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise ValueError(f"is not a Redis URL; write {FORM}; {_ENCODE}") from None
    if parts.scheme not in ("redis", "rediss") or "://" not in url:
        raise ValueError(_UNSUPPORTED.get(parts.scheme) or f"is not a Redis URL; write {FORM}")
    if set(",;") & set(parts.netloc.rpartition("@")[2]):
        raise ValueError("names several servers (Cluster or Sentinel); write the address of the primary")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"is not a Redis URL: its port is not a number; write {FORM}; {_ENCODE}") from None
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        raise ValueError("has a / # ? or @ that must be percent-encoded (%2F, %23, %3F, %40)")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    database = _database(parts, options.pop("db", None))
    query = _options(parts.scheme, options)
    host = unquote(parts.hostname or "127.0.0.1")
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"{parts.scheme}://{_user(parts)}{place}:{port or PORT}/{database}{query}"


def address(url: str) -> str:
    """The canonical form of `url` without user, password and options, one spelling per database."""
    parts = urlsplit(without_password(canonical(url)))
    host = f"127.0.0.1:{parts.port}" if parts.hostname == "localhost" else parts.netloc
    return f"{parts.scheme}://{host}{parts.path}"


def without_password(url: str) -> str:
    """`url` without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _user(parts: SplitResult) -> str:
    name, password = (quote(unquote(part or ""), safe="") for part in (parts.username, parts.password))
    if not password:
        return f"{name}@" if name else ""
    return f"{name}:{password}@"


def _database(parts: SplitResult, option: str | None) -> int:
    written = unquote(parts.path).removeprefix("/").removesuffix("/")
    for text in (written, option):
        if text and not (text.isascii() and text.isdecimal()):
            raise ValueError(
                "names a database that is not a number; write it after the host, as in redis://host/3"
            )
    if written and option and int(written) != int(option):
        raise ValueError("names two databases; write one after the host, as in redis://host/3")
    return int(written or option or 0)


def _options(scheme: str, options: dict[str, str]) -> str:
    unknown = sorted(set(options) - set(_TLS))
    if unknown:
        raise ValueError(
            f"has the option {unknown[0]!r}, which not all clients support; leave it out (known: "
            f"db, and with rediss:// {', '.join(_TLS)})"
        )
    if options and scheme == "redis":
        raise ValueError(f"has the option {sorted(options)[0]}, which belongs to TLS; write rediss://")
    if scheme == "redis":
        return ""
    for name in TLS_FILES:
        if name in options:
            options[name] = os.path.abspath(os.path.expanduser(options[name]))
            if set(options[name]) & set("%&+# ;"):
                raise ValueError(f"has a file name in {name} with one of %&+# ; or a space; rename the file")
    required = options.pop("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if required not in ("required", "optional", "none"):
        raise ValueError("has an invalid ssl_cert_reqs; write required, optional or none")
    options["ssl_cert_reqs"] = required
    if "ssl_check_hostname" in options:
        checked = options["ssl_check_hostname"].lower()
        if checked not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError("has an invalid ssl_check_hostname; write true or false")
        options["ssl_check_hostname"] = str(checked in ("true", "1", "yes")).lower()
    return "?" + "&".join(f"{name}={value}" for name, value in options.items())
