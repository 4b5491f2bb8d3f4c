"""Celery on Redis, as its documentation recommends for tasks that must not be lost: late acknowledgement,
nothing prefetched, the result awaited.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

URL = os.environ["BENCH_REDIS_URL"]
TIMEOUT_S = 60.0

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
)


@app.task
def noop() -> None:
    return None


def post() -> Any:
    return noop.delay()


def wait(result: Any) -> None:
    result.get(timeout=TIMEOUT_S)
