"""arq on Redis. A job stays in its queue until it has run."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])
TIMEOUT_S = 60.0
POLL_S = 0.002  # worker and client poll, by default every 0.5 s
POLLS_PER_S = 4000  # for the results of all requests in flight: more would slow its workers down

_pools: list[Any] = []
_in_flight = 0


async def noop(_context: Any) -> None:
    return None


class Worker:
    functions: ClassVar = [noop]
    redis_settings = SETTINGS
    poll_delay = POLL_S
    max_jobs = int(os.environ.get("BENCH_SLOTS", "1"))


async def start() -> None:
    _pools.append(await create_pool(SETTINGS))


async def request() -> None:
    global _in_flight
    _in_flight += 1
    job = await _pools[0].enqueue_job("noop")
    await job.result(timeout=TIMEOUT_S, poll_delay=max(POLL_S, _in_flight / POLLS_PER_S))
    _in_flight -= 1


async def close() -> None:
    await _pools[0].aclose()
