"""Posts requests for a program that does not wait for them, and reads their states and outcomes. Blocking.

Invariants: a request is posted only when it is neither queued nor held by a worker and has no outcome, so
that posting twice is posting once; posting never exceeds the limit of a queue; nothing posted here is
cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, cast

import redis

from workers.broker.keys import outcome_key, record_key
from workers.broker.posting import post as post_batch
from workers.broker.posting import prepare
from workers.messages import Outcome, Request

State = Literal["absent", "posted", "queued", "running", "done"]
BATCH = 256  # requests per call


def post(client: redis.Redis, requests: Sequence[Request], max_waiting: int) -> dict[str, State]:
    """Post the requests that are absent, while their queue holds fewer than `max_waiting`.

    Returns the state of each; `posted`: by this call; `absent`: its queue is full. Raises
    `redis.RedisError`; a repeated call then posts the rest.
    """
    found: dict[str, State] = {}
    for first in range(0, len(requests), BATCH):
        part, now = requests[first : first + BATCH], time.time()
        answers = post_batch(client, [prepare(one, "", now) for one in part], max_waiting, keep_failures=True)
        for one, answer in zip(part, answers, strict=True):
            if found.get(one.request_id) != "posted":  # unless it was given twice
                found[one.request_id] = _ANSWERS[answer.state]
    return found


def states(client: redis.Redis, request_ids: Sequence[str]) -> dict[str, State]:
    """The state of each request: absent, queued, running (held by a worker) or done. Raises
    `redis.RedisError`.
    """
    found: dict[str, State] = {}
    for first in range(0, len(request_ids), BATCH):
        part = request_ids[first : first + BATCH]
        pipeline = client.pipeline()
        for request_id in part:
            pipeline.exists(outcome_key(request_id))
            pipeline.hget(record_key(request_id), "state")
        answers = pipeline.execute()
        for request_id, done, state in zip(part, answers[::2], answers[1::2], strict=True):
            found[request_id] = "done" if done else _STATES.get(state, "absent")
    return found


_STATES: dict[bytes | None, State] = {b"waiting": "queued", b"held": "running"}
_ANSWERS: dict[str, State] = {
    "posted": "posted",
    "waiting": "queued",
    "running": "running",
    "cancelled": "running",
    "done": "done",
    "full": "absent",
}


def outcomes(client: redis.Redis, request_ids: Sequence[str]) -> dict[str, Outcome]:
    """The outcomes of the requests that have one. Raises `redis.RedisError`."""
    found: dict[str, Outcome] = {}
    for first in range(0, len(request_ids), BATCH):
        part = request_ids[first : first + BATCH]
        stored = cast(list[bytes | None], client.mget([outcome_key(one) for one in part]))
        found.update({i: Outcome.model_validate_json(o) for i, o in zip(part, stored, strict=True) if o})
    return found
