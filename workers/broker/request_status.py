"""Where one request is in Redis. Blocking; some ms per 1,000 queued messages.

Invariants: nothing is changed; all facts come from one moment. Ages compare the clock of the worker with that
of this machine. Limit: a request id with characters that JSON escapes is not found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workers.broker.keys import UNACKED, UNACKED_INDEX, attempts_key, outcome_key, queue_lists
from workers.broker.leases import beat_s
from workers.broker.registry import WorkerRecord, read_workers
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.redis_script import Script
from workers.settings import QueueSettings

MISSED_BEATS = 2.5  # a worker that has not renewed its lease for so many beats is silent, not late

FIND_REQUEST = Script("workers.broker.scripts", "find_request")
State = Literal["waiting", "running", "silent", "unserved", "missing", "ended"]


@dataclass(frozen=True)
class RequestStatus:
    """State of one request.

    - `waiting`: queued behind `before` others.
    - `unserved`: queued, and no ready worker consumes the queue.
    - `running`: held for `for_s` seconds by a worker that renews its lease.
    - `silent`: held by a worker that has not renewed its lease for `for_s` seconds.
    - `missing`: neither queued nor held, and without an outcome.
    - `ended`: its outcome is stored.

    `for_s` is 0 where it is not known. `workers` consume the queue and are ready, `loading` are not yet.
    `attempts`: how often the request was started.
    """

    state: State
    for_s: float = 0.0
    before: int = 0
    workers: int = 0
    loading: int = 0
    attempts: int = 0

    @property
    def stuck(self) -> bool:
        """Whether it does not advance until a worker starts or a lease expires."""
        return self.state in ("silent", "missing") or (self.state == "unserved" and not self.loading)


def find_request(url: str, settings: QueueSettings, request_id: str, queue: str) -> RequestStatus:
    """Read the status of a request from the Redis at `url`. Raises `redis.RedisError`."""
    keys = [outcome_key(request_id), attempts_key(request_id), UNACKED, UNACKED_INDEX, *queue_lists(queue)]
    with connect_redis(url, POLL_TIMEOUT_S) as client:
        found: Any = FIND_REQUEST(client, keys, [request_id])
    return status_of(found, read_workers(url), queue, settings, time.time())


def status_of(
    found: Sequence[Any], workers: Sequence[WorkerRecord], queue: str, settings: QueueSettings, now: float
) -> RequestStatus:
    """The status at `now` (Unix seconds), from the answer of `find_request.lua` and the worker registry."""
    ended, attempts, expires_ms, renewed, before = found
    serving = [worker for worker in workers if queue in worker.queues]
    ready = sum(worker.ready for worker in serving)
    known: dict[str, int] = {
        "workers": ready,
        "loading": len(serving) - ready,
        "attempts": int(attempts),
    }
    if ended:
        return RequestStatus("ended", **known)
    if renewed is not None:
        silent_s = now - float(renewed)
        if silent_s > MISSED_BEATS * beat_s(settings.lease_s):
            return RequestStatus("silent", for_s=silent_s, **known)
        # The list of attempts expires `result_ttl_s` after the last attempt started.
        running_s = settings.result_ttl_s - expires_ms / 1000 if expires_ms > 0 else 0.0
        return RequestStatus("running", for_s=max(0.0, running_s), **known)
    if before < 0:
        return RequestStatus("missing", **known)
    return RequestStatus("waiting" if ready else "unserved", before=before, **known)
