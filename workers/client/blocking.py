"""Posts requests for a program that does not wait for them, and reads their states and outcomes. Blocking.

Invariants: a request is posted only when it is neither queued nor held by a worker and has no outcome, in one
atomic script, so that posting twice is posting once; posting never exceeds the limit of a queue; nothing
posted here is cancelled.

Limits: request ids must be plain (letters, digits, dots, dashes), since the script searches them in the
messages; it scans the queue inside Redis, some ms per 1,000 queued messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import redis

from workers.broker.keys import UNACKED, outcome_key, queue_lists
from workers.messages import Outcome, Request
from workers.redis_script import Script

State = Literal["absent", "posted", "queued", "running", "done"]
BATCH = 256  # requests per call of the script

SUBMIT = Script("workers.client.scripts", "submit")


def post(client: redis.Redis, requests: Sequence[Request], max_waiting: int) -> dict[str, State]:
    """Post the requests that are absent, while their queue holds fewer than `max_waiting`.

    Returns the state of each: `posted` by this call, or still `absent` because the queue is full. Raises
    `redis.RedisError`; a repeated call then posts the rest.
    """
    from workers.client.publisher import encode  # here: readers of states do not need Celery

    found: dict[str, State] = {}
    for kind in sorted({request.kind for request in requests}):
        part = [request for request in requests if request.kind == kind]
        for first in range(0, len(part), BATCH):
            pairs = [
                (one.request_id, encode(one, tag=one.request_id, reply_to=""))
                for one in part[first : first + BATCH]
            ]
            found |= _submit(client, kind, max_waiting, pairs)
    return found


def states(client: redis.Redis, kind: str, request_ids: Sequence[str]) -> dict[str, State]:
    """The state of each request: absent, queued, running (held by a worker) or done. Raises
    `redis.RedisError`.
    """
    found: dict[str, State] = {}
    for first in range(0, len(request_ids), BATCH):
        found.update(_submit(client, kind, 0, [(one, "") for one in request_ids[first : first + BATCH]]))
    return found


def outcomes(client: redis.Redis, request_ids: Sequence[str]) -> dict[str, Outcome]:
    """The outcomes of the requests that have one. Raises `redis.RedisError`."""
    found: dict[str, Outcome] = {}
    for first in range(0, len(request_ids), BATCH):
        part = request_ids[first : first + BATCH]
        stored = cast(list[bytes | None], client.mget([outcome_key(one) for one in part]))
        found.update({i: Outcome.model_validate_json(o) for i, o in zip(part, stored, strict=True) if o})
    return found


def _submit(client: redis.Redis, kind: str, limit: int, pairs: Sequence[tuple[str, str]]) -> dict[str, State]:
    """Call the script for (id, message) pairs. `limit`: messages that the queue may hold, 0 to post none."""
    keys = [UNACKED, *queue_lists(kind)]
    flat = [text for pair in pairs for text in pair]
    answer = SUBMIT(client, keys, [limit, *flat])
    found: dict[str, State] = {}
    for request_id, state in zip(answer[::2], answer[1::2], strict=True):
        found[request_id.decode()] = cast(State, state.decode())
    return found
