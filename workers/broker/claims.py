"""Claims: which worker holds which request, and for how long. Blocking; each call is one atomic script.

Invariants:
- A request is in its queue or held by one worker. Each claim of a request has its own number, and only the
  worker of the last claim can renew its lease or requeue it.
- Times and leases go by the clock of Redis. A worker gets durations.
- The cost of a call does not depend on the number of queued requests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from workers.broker.keys import LEVELS, queue_lists
from workers.messages import Message
from workers.redis_script import Script

AGEING_S = 120.0  # a request overtakes those of the next higher level that were posted so much later

CLAIM = Script("workers.broker.scripts", "claim", "queue")
RENEW = Script("workers.broker.scripts", "renew", "queue")
REQUEUE = Script("workers.broker.scripts", "requeue", "queue")

Why = Literal["returned", "lost"]


class Attempt(Message):
    """A claim that ended with the loss of its process or worker. `worker`: its name; `started`: Unix seconds
    by the clock of Redis.
    """

    worker: str
    started: float


@dataclass(frozen=True)
class Claim:
    """A request that this worker holds.

    `number`: of the claim; 0 for an entry that names no request, with the entry as `message`. `attempt`:
    how often the request was claimed. `age_s`: seconds since it was posted. `left_s`, `start_left_s`: seconds
    until its deadline and its latest start.
    `lost`: earlier claims that were lost.
    """

    request_id: str
    number: int
    queue: str
    message: bytes
    reply_to: str = ""
    age_s: float = 0.0
    left_s: float = 0.0
    start_left_s: float = 0.0
    lost: tuple[Attempt, ...] = ()
    attempt: int = 1

    @property
    def tag(self) -> str:
        """Names this claim of this request; Celery's delivery tag."""
        return f"{self.request_id}/{self.number}"


@dataclass(frozen=True)
class Requeued:
    """A request that went back to its queue, and the worker that held it."""

    queue: str
    request_id: str
    worker: str


@dataclass(frozen=True)
class Renewal:
    """What a renewal found. `lost`: claims that are not held any more. `cancelled`: those of requests that
    have an outcome already. `now`: Unix seconds by the clock of Redis.
    """

    lost: tuple[Claim, ...]
    cancelled: tuple[Claim, ...]
    now: float


def claim(client: redis.Redis, queues: Sequence[str], count: int, worker: str, lease_s: float) -> list[Claim]:
    """Claim up to `count` of the next requests of `queues`. Raises `redis.RedisError`."""
    lists = [
        (key, queue, level) for queue in queues for key, level in zip(queue_lists(queue), LEVELS, strict=True)
    ]
    arguments: list[Any] = [count, _microseconds(lease_s), worker, _microseconds(AGEING_S / LEVELS[1])]
    for _, queue, level in lists:
        arguments += [queue, level]
    return [_claim_of(found) for found in CLAIM(client, [key for key, *_ in lists], arguments)]


def renew(client: redis.Redis, claims: Sequence[Claim], lease_s: float) -> Renewal:
    """Renew the leases of `claims`. Raises `redis.RedisError`."""
    arguments: list[Any] = [_microseconds(lease_s), *_names(claims)]
    lost, cancelled, (seconds, micros) = RENEW(client, [], arguments)
    now = int(seconds) + int(micros) / 1e6
    return Renewal(tuple(claims[i] for i in lost), tuple(claims[i] for i in cancelled), now)


def requeue(client: redis.Redis, claims: Sequence[Claim], why: Why) -> list[Requeued]:
    """Put `claims` back to the heads of their queues, those that are still held.

    `returned`: nothing went wrong. `lost`: the process that ran them died; this counts as an attempt. Raises
    `redis.RedisError`.
    """
    return _requeued(REQUEUE(client, [], [why, *_names(claims)]))


def requeue_expired(client: redis.Redis, queues: Sequence[str]) -> list[Requeued]:
    """Put requests with expired leases back to the heads of `queues`. Raises `redis.RedisError`."""
    return _requeued(REQUEUE(client, [], ["expired", *queues]))


def requeue_unknown(
    client: redis.Redis, queues: Sequence[str], worker: str, known: Sequence[Claim]
) -> list[Requeued]:
    """Requeue what `worker` holds besides `known`, after the answer to a claim was lost or a requeue has
    failed. It counts as no attempt. Raises `redis.RedisError`.
    """
    claims = [name for one in known for name in (one.request_id, one.number)]
    return _requeued(REQUEUE(client, [], ["unknown", worker, len(queues), *queues, *claims]))


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _names(claims: Sequence[Claim]) -> list[str | int]:
    return [name for one in claims for name in (one.queue, one.request_id, one.number)]


def _claim_of(found: Sequence[Any]) -> Claim:
    if len(found) == 3:
        return Claim("", 0, found[2].decode(), found[0])
    request_id, number, queue, message, reply_to, age, left, start_left, lost, attempt = found
    return Claim(
        request_id.decode(),
        int(number),
        queue.decode(),
        message,
        reply_to.decode(),
        int(age) / 1e6,
        int(left) / 1e6,
        int(start_left) / 1e6,
        tuple(Attempt.model_validate(one) for one in json.loads(lost)),
        attempt,
    )


def _requeued(found: Sequence[bytes]) -> list[Requeued]:
    names = [name.decode() for name in found]
    return [Requeued(*names[i : i + 3]) for i in range(0, len(names), 3)]
