"""Posts requests for a program that does not wait for them, and tells what became of them. Blocking.

Invariants: one atomic step decides about each request: it is posted only when it is queued nowhere, held by
no worker and has no outcome, so that posting twice is posting once; a queue never holds more than its limit
by what is posted here; nothing posted here is ever cancelled.
Limits: ids must be plain (letters, digits, dots, dashes), since they are searched in the messages; the search
reads the queue inside Redis, some ms per 1,000 waiting messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import redis

from workers.broker.keys import UNACKED, outcome_key, queue_lists
from workers.messages import Outcome, Request
from workers.redis_script import Script

State = Literal["absent", "posted", "queued", "running", "done"]
AT_ONCE = 256  # requests per call of the script

SUBMIT = Script("workers.client.scripts", "submit")


def post(client: redis.Redis, requests: Sequence[Request], max_waiting: int) -> dict[str, State]:
    """Post what is absent, durably, and return at once. Returns the states of all: those posted now are
    `posted`, and those that are still `absent` found no room among the `max_waiting` that a queue may hold.

    Raises `redis.RedisError`; calling it again then posts the rest.
    """
    from workers.client.publisher import encode

    found: dict[str, State] = {}
    for kind in sorted({request.kind for request in requests}):
        part = [request for request in requests if request.kind == kind]
        for first in range(0, len(part), AT_ONCE):
            pairs = [
                (one.request_id, encode(one, tag=one.request_id, reply_to=""))
                for one in part[first : first + AT_ONCE]
            ]
            found |= _ask(client, kind, max_waiting, pairs)
    return found


def states(client: redis.Redis, kind: str, request_ids: Sequence[str]) -> dict[str, State]:
    """Where each request is: absent from Redis, queued, held by a worker, or done. Raises
    `redis.RedisError`.
    """
    found: dict[str, State] = {}
    for first in range(0, len(request_ids), AT_ONCE):
        found.update(_ask(client, kind, 0, [(one, "") for one in request_ids[first : first + AT_ONCE]]))
    return found


def outcomes(client: redis.Redis, request_ids: Sequence[str]) -> dict[str, Outcome]:
    """The stored outcomes of those that have one. Raises `redis.RedisError`."""
    found: dict[str, Outcome] = {}
    for first in range(0, len(request_ids), AT_ONCE):
        part = request_ids[first : first + AT_ONCE]
        stored = cast(list[bytes | None], client.mget([outcome_key(one) for one in part]))
        found.update({i: Outcome.model_validate_json(o) for i, o in zip(part, stored, strict=True) if o})
    return found


def _ask(client: redis.Redis, kind: str, may_hold: int, pairs: Sequence[tuple[str, str]]) -> dict[str, State]:
    keys = [UNACKED, *queue_lists(kind)]
    flat = [text for pair in pairs for text in pair]
    answer = SUBMIT(client, keys, [may_hold, *flat])
    found: dict[str, State] = {}
    for request_id, state in zip(answer[::2], answer[1::2], strict=True):
        found[request_id.decode()] = cast(State, state.decode())
    return found
