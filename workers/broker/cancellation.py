"""Cancellation of running jobs: the check that a job polls.

A request is cancelled once its outcome is stored (`QueueClient.cancel`). Jobs that can stop early, for
example between two steps of a pipeline, poll for it with `CancellationCheck`. Jobs in a process of their own
are killed by their worker (`workers.celery_app.lease`).

Invariants: Redis is polled at most every `POLL_S`; if it does not answer, the request counts as not cancelled
and Redis is not polled for `BACKOFF_S`, so that an outage does not delay a GPU.
"""

from __future__ import annotations

import functools
import time

import redis

from workers.broker.keys import outcome_key
from workers.redis_client import JOB_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

POLL_S = 0.5
BACKOFF_S = 10.0


class CancellationCheck:
    """Callable that returns whether one request was cancelled.

    `process`: id of this process; a connection must not be shared across a fork.
    """

    def __init__(self, request_id: str, process: int):
        self._key = outcome_key(request_id)
        self._process = process
        self._cancelled = False
        self._poll_at = 0.0  # monotonic seconds

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._cancelled and now >= self._poll_at:
            self._poll_at = now + POLL_S
            try:
                self._cancelled = bool(_redis(self._process).exists(self._key))
            except (redis.RedisError, OSError):
                self._poll_at = time.monotonic() + BACKOFF_S
        return self._cancelled


@functools.cache
def _redis(_process: int) -> redis.Redis:
    settings = section("queue", QueueSettings)
    return connect_redis(settings.url, JOB_TIMEOUT_S)
