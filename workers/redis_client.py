"""The one place that connects to Redis.

Every connection has a time-out, in seconds, for connecting and for each command. Choose it by purpose:
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio

START_POLL_TIMEOUT_S = 1.0  # polls of a server that is starting
JOB_TIMEOUT_S = 1.0  # polls of a running job: a Redis that does not answer must not delay a GPU
POLL_TIMEOUT_S = 2.0  # reads and beats that are repeated within seconds
CHECK_TIMEOUT_S = 3.0  # checks before a run, and scrapes, which Prometheus gives up after 10 s
COMMAND_TIMEOUT_S = 5.0  # commands whose answer is needed
SUBMIT_TIMEOUT_S = 10.0  # batches of posts and outcomes
SCAN_TIMEOUT_S = 30.0  # reading all messages and outcomes


def connect_redis(
    url: str, timeout_s: float = COMMAND_TIMEOUT_S, *, decode: bool = False, password: str = ""
) -> redis.Redis:
    """A blocking client. Use it as a context manager, or keep it for the life of the process.

    `decode`: replies are text, not bytes. `password` replaces that of `url`.
    """
    options: dict[str, Any] = {"decode_responses": decode, **({"password": password} if password else {})}
    return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, **options)


def connect_redis_async(
    url: str, timeout_s: float = COMMAND_TIMEOUT_S, *, keep_open: bool = False, single: bool = False
) -> redis.asyncio.Redis:
    """A client for the event loop. Use it as an async context manager, or call `aclose`.

    `keep_open`: notice a lost connection while idle (TCP keepalive, and a PING every 10 s before use).
    `single`: one connection instead of a pool.
    """
    options: dict[str, Any] = {"socket_keepalive": True, "health_check_interval": 10} if keep_open else {}
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        single_connection_client=single,
        **options,
    )
