"""dramatiq on Redis, with its result backend. It acknowledges a message after its actor."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

URL = os.environ["BENCH_REDIS_URL"]
TIMEOUT_MS = 60_000

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop() -> None:
    return None


def post() -> Any:
    return noop.send()


def wait(message: Any) -> None:
    message.get_result(block=True, timeout=TIMEOUT_MS)
