"""Where one request is, as Redis has it: in its queue, with a worker that lives, with one that is silent, or
nowhere. Blocking; some ms per 1,000 waiting messages.

Invariants: nothing is changed; what Redis says of a request comes from one moment. Ages compare the worker's
clock with this one. Limit: an id with characters that JSON escapes is not found.
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

SILENT_BEATS = 2.5  # a lease is renewed once a beat; whoever missed two is silent, not late

FIND_REQUEST = Script("workers.broker.scripts", "find_request")

State = Literal["waiting", "running", "silent", "unserved", "missing", "ended"]


@dataclass(frozen=True)
class RequestStatus:
    """`waiting` in its queue, behind `before` others; `unserved`: there, and no ready worker serves it;
    `running` on a worker that renews its lease, for `for_s`; `silent`: on one that has not for `for_s`;
    `missing`: none of these, and it has no outcome; `ended`: its outcome is stored.

    `for_s` in seconds, 0 where it is not known. `workers` are ready and serve its queue, `loading` are not
    ready yet; `attempts`: how often it was begun.
    """

    state: State
    for_s: float = 0.0
    before: int = 0
    workers: int = 0
    loading: int = 0
    attempts: int = 0

    @property
    def stuck(self) -> bool:
        """Whether it will not get on until something is done, or its lease runs out."""
        return self.state in ("silent", "missing") or (self.state == "unserved" and not self.loading)


def find_request(url: str, settings: QueueSettings, request_id: str, queue: str) -> RequestStatus:
    """Ask the Redis at `url`. Raises `redis.RedisError` when it does not answer."""
    keys = [outcome_key(request_id), attempts_key(request_id), UNACKED, UNACKED_INDEX, *queue_lists(queue)]
    with connect_redis(url, POLL_TIMEOUT_S) as client:
        found: Any = FIND_REQUEST(client, keys, [request_id])
    return judge(found, read_workers(url), queue, settings, time.time())


def judge(
    found: Sequence[Any], roster: Sequence[WorkerRecord], queue: str, settings: QueueSettings, now: float
) -> RequestStatus:
    """What the answer of `find_request.lua` and the list of workers say at `now` (Unix seconds)."""
    ended, attempts, forgotten_ms, renewed, before = found
    serving = [worker for worker in roster if queue in worker.queues]
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
        if silent_s > SILENT_BEATS * beat_s(settings.lease_s):
            return RequestStatus("silent", for_s=silent_s, **known)
        # An attempt is counted when it begins, and its count kept for a known time from then on.
        begun_s = settings.result_ttl_s - forgotten_ms / 1000 if forgotten_ms > 0 else 0.0
        return RequestStatus("running", for_s=max(0.0, begun_s), **known)
    if before < 0:
        return RequestStatus("missing", **known)
    return RequestStatus("waiting" if ready else "unserved", before=before, **known)
