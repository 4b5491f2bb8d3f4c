"""Whether a request that runs here was cancelled: its outcome is stored already (`QueueClient.cancel`).

For jobs that stop by themselves, such as between two steps of a pipeline, where their process must not be
killed. Invariants: Redis is asked at most every `LOOK_S`; if it does not answer, the request counts as not
cancelled, and Redis is not asked again for `AWAY_S`, so that an outage does not delay a GPU.
"""

from __future__ import annotations

import functools
import time

import redis

from workers.broker.outcomes import outcome_key
from workers.settings import QueueSettings, section

LOOK_S = 0.5
AWAY_S = 10.0
TIMEOUT_S = 1.0


class Cancelled:
    """Returns whether one request was cancelled. `process`: the id of this process, since a connection must
    not be shared across a fork.
    """

    def __init__(self, request_id: str, process: int):
        self._key = outcome_key(request_id)
        self._process = process
        self._ended = False
        self._look_at = 0.0  # monotonic seconds

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._ended and now >= self._look_at:
            self._look_at = now + LOOK_S
            try:
                self._ended = bool(_redis(self._process).exists(self._key))
            except (redis.RedisError, OSError):
                self._look_at = time.monotonic() + AWAY_S
        return self._ended


@functools.cache
def _redis(_process: int) -> redis.Redis:
    settings = section("queue", QueueSettings)
    return redis.Redis.from_url(settings.url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
