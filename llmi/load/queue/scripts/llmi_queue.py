"""llmi: the queue client, on the queue named by BENCH_KIND. Its workers are started by `llmi.load.queue`."""

from __future__ import annotations

import os

from llmi.load.queue.noop import TIMEOUT_S, Noop
from workers.client.client import QueueClient
from workers.messages import Request
from workers.settings import QueueSettings

KIND = os.environ["BENCH_KIND"]
_client = QueueClient(QueueSettings(redis_url=os.environ["BENCH_REDIS_URL"]))


async def start() -> None:
    await _client.start()


async def request() -> None:
    handle = await _client.post(Request.make(KIND, Noop(), timeout_s=TIMEOUT_S))
    outcome = await handle.outcome()
    if not outcome.ok:
        raise RuntimeError(f"a request failed: {outcome.result}")


async def close() -> None:
    await _client.close()
