"""taskiq on a Redis stream, which acknowledges a message after its result is saved."""

from __future__ import annotations

import os

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

URL = os.environ["BENCH_REDIS_URL"]
TIMEOUT_S = 60.0
POLL_S = 0.002  # its client polls for each result, by default every 0.2 s
POLLS_PER_S = 4000  # of all requests in flight: more would slow its workers down

broker = RedisStreamBroker(url=URL).with_result_backend(RedisAsyncResultBackend(URL))
_in_flight = 0


@broker.task
async def noop() -> None:
    return None


async def start() -> None:
    await broker.startup()


async def request() -> None:
    global _in_flight
    _in_flight += 1
    task = await noop.kiq()
    poll_s = max(POLL_S, _in_flight / POLLS_PER_S)
    result = await task.wait_result(check_interval=poll_s, timeout=TIMEOUT_S)
    result.raise_for_error()
    _in_flight -= 1


async def close() -> None:
    await broker.shutdown()
