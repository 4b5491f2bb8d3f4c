"""Where one request is in Redis. Blocking; its cost does not depend on the queues.

Invariants: nothing is changed; the facts about the request come from one moment; times go by the clock of
Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workers.broker.dead_letters import QUARANTINED
from workers.broker.keys import outcome_key, record_key
from workers.broker.leases import beat_s, granted_s
from workers.broker.registry import WorkerRecord, read_workers
from workers.messages import Failure, Outcome
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.redis_script import Script
from workers.settings import QueueSettings

MISSED_BEATS = 2.5  # a worker that has not renewed its lease for so many beats is silent, not late

STATUS = Script("workers.broker.scripts", "status", "queue")
State = Literal["waiting", "running", "silent", "unserved", "quarantined", "done", "unknown"]


@dataclass(frozen=True)
class RequestStatus:
    """State of one request.

    - `waiting`: queued behind about `before` others.
    - `unserved`: queued, and no ready worker consumes the queue.
    - `running`: held for `for_s` seconds by `worker`, which renews its lease.
    - `silent`: held by `worker`, which has not renewed its lease for `for_s` seconds.
    - `quarantined`: it ended its process too often, and is not tried again.
    - `done`: its outcome is stored.
    - `unknown`: Redis has neither the request nor an outcome.

    `workers` consume the queue and are ready, `loading` are not yet. `attempts`: how many were lost, and
    the current one.
    """

    state: State
    for_s: float = 0.0
    before: int = 0
    worker: str = ""
    workers: int = 0
    loading: int = 0
    attempts: int = 0

    @property
    def stuck(self) -> bool:
        """Whether it does not advance until a worker starts or a lease expires."""
        return self.state in ("silent", "unknown") or (self.state == "unserved" and not self.loading)


def find_request(url: str, settings: QueueSettings, request_id: str, queue: str) -> RequestStatus:
    """Read the status of a request from the Redis at `url`. Raises `redis.RedisError`."""
    with connect_redis(url, POLL_TIMEOUT_S) as client:
        found: Any = STATUS(client, [outcome_key(request_id), record_key(request_id)], [request_id])
    return status_of(found, read_workers(url), queue, settings)


def status_of(
    found: Sequence[Any], workers: Sequence[WorkerRecord], queue: str, settings: QueueSettings
) -> RequestStatus:
    """The status, from the answer of `status.lua` and the worker registry."""
    outcome, state, before, worker, held, left, lost = found
    serving = [one for one in workers if queue in one.queues]
    ready = sum(one.ready for one in serving)
    known: dict[str, Any] = {"workers": ready, "loading": len(serving) - ready, "attempts": int(lost)}
    if outcome:
        return RequestStatus("quarantined" if _is_quarantined(outcome) else "done", **known)
    if not state:
        return RequestStatus("unknown", **known)
    if state == b"waiting":
        return RequestStatus("waiting" if ready else "unserved", before=before, **known)
    known["attempts"] += 1
    silent_s = granted_s(settings.lease_s) - int(left) / 1e6
    if silent_s > MISSED_BEATS * beat_s(settings.lease_s):
        return RequestStatus("silent", for_s=silent_s, worker=worker.decode(), **known)
    return RequestStatus("running", for_s=int(held) / 1e6, worker=worker.decode(), **known)


def _is_quarantined(outcome: bytes) -> bool:
    result = Outcome.model_validate_json(outcome).result
    return isinstance(result, Failure) and result.detail.startswith(QUARANTINED)
