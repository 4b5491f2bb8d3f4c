"""Lua scripts in `.lua` files, called in Redis by their SHA-1.

The header of each file documents its keys, its arguments and what it returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from importlib.resources import files
from typing import Any, cast

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

PIPELINES = (redis.client.Pipeline, redis.asyncio.client.Pipeline)
Argument = str | bytes | int | float


class Script:
    """The script `NAME.lua` in the folder of `package`, after the functions of `LIBRARY.lua` if one is named.

    A call sends the SHA-1. A server that does not have the script, for example after a restart, gets the
    source once. A pipeline gets the source each time, since it cannot send a missing script again.
    """

    def __init__(self, package: str, name: str, library: str = ""):
        parts = [files(package).joinpath(f"{one}.lua") for one in (library, name) if one]
        self.source = "".join(part.read_text(encoding="utf-8") for part in parts)
        self.sha = hashlib.sha1(self.source.encode()).hexdigest()

    def __call__(
        self, client: redis.Redis, keys: Sequence[str] = (), arguments: Sequence[Argument] = ()
    ) -> Any:
        """Run the script, or add it to a pipeline. Raises `redis.RedisError`."""
        if isinstance(client, PIPELINES):
            return client.eval(self.source, len(keys), *keys, *arguments)  # type: ignore[arg-type]
        try:
            return client.evalsha(self.sha, len(keys), *keys, *arguments)  # type: ignore[arg-type]
        except NoScriptError:
            return client.eval(self.source, len(keys), *keys, *arguments)  # type: ignore[arg-type]

    async def call_async(
        self, client: redis.asyncio.Redis, keys: Sequence[str] = (), arguments: Sequence[Argument] = ()
    ) -> Any:
        """As `__call__`, on the event loop."""
        try:
            found = client.evalsha(self.sha, len(keys), *keys, *arguments)  # type: ignore[arg-type]
            return await cast(Awaitable[Any], found)
        except NoScriptError:
            found = client.eval(self.source, len(keys), *keys, *arguments)  # type: ignore[arg-type]
            return await cast(Awaitable[Any], found)
