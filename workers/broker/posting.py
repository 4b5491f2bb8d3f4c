"""Posts requests to their queues, and reads their outcomes.

Invariants: a request is queued at most once, however often it is posted; a queue never holds more than its
limit; posting and reading cost the same whatever is queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis
import redis.asyncio

from workers.broker.keys import LEVELS
from workers.errors import Cause, Fault, InfrastructureFault
from workers.messages import Request
from workers.queues import QUEUES
from workers.redis_script import Script

MAX_MESSAGE_BYTES = 1 << 20  # the longest tag (100,000 characters) takes 0.8 MB at most
RECORD_TTL_S = 3600  # a record is kept for so long after the deadline of its request

POST = Script("workers.broker.scripts", "post", "queue")
CHECK = Script("workers.broker.scripts", "check", "queue")

State = Literal["posted", "waiting", "running", "cancelled", "done", "full"]


@dataclass(frozen=True)
class Post:
    """One request to post. `message`: it as JSON. `left_s`: seconds until its deadline; `start_left_s`: until
    its latest start.
    """

    request_id: str
    queue: str
    level: int
    message: str
    reply_to: str
    left_s: float
    start_left_s: float


@dataclass(frozen=True)
class Posted:
    """The state of a request after posting.

    - `posted`: now queued. `length`: that of its queue.
    - `waiting`, `running`: it was queued or held already.
    - `cancelled`: a worker still holds it, and it was cancelled. Nothing is changed.
    - `done`: it has an outcome, `outcome` as JSON.
    - `full`: its queue has no room. `length`: that of its queue.
    """

    state: State
    length: int = 0
    outcome: bytes = b""


def prepare(request: Request, reply_to: str, now: float) -> Post:
    """The post of a request. `now`: Unix seconds by the clock that set its deadline.

    Raises `InfrastructureFault(BAD_MESSAGE)`, and nothing else, if it cannot be written or is too large.
    """
    try:
        message = request.model_dump_json()
        size = len(message.encode())
    except Exception as error:  # of any kind: a batch has other requests too
        why = f"it cannot be written as a message: {type(error).__name__}: {error}"
        raise InfrastructureFault(Cause.BAD_MESSAGE, why[:300]) from error
    if size > MAX_MESSAGE_BYTES:
        raise InfrastructureFault(
            Cause.BAD_MESSAGE, f"a message of {size} bytes; at most {MAX_MESSAGE_BYTES} are allowed"
        )
    return Post(
        request.request_id,
        QUEUES[request.kind].name,
        request.priority,
        message,
        reply_to,
        request.deadline - now,
        request.start_by - now,
    )


def _arguments(posts: Sequence[Post], max_waiting: int, keep_failures: bool) -> list[Any]:
    model_causes = ",".join(cause.value for cause in Cause if cause.fault is Fault.MODEL)
    arguments: list[Any] = [max_waiting, RECORD_TTL_S, "*" if keep_failures else model_causes]
    for one in posts:
        assert one.level in LEVELS
        arguments += [one.request_id, one.queue, one.level, one.message, one.reply_to]
        arguments += [round(one.left_s * 1e6), round(one.start_left_s * 1e6)]
    return arguments


def _posted(answer: Sequence[Sequence[Any]]) -> list[Posted]:
    found = []
    for raw, detail in answer:
        state: Any = raw.decode()
        found.append(Posted(state, outcome=detail) if state == "done" else Posted(state, int(detail or 0)))
    return found


def post(client: redis.Redis, posts: Sequence[Post], max_waiting: int, keep_failures: bool) -> list[Posted]:
    """Post requests; the answers are in their order.

    `max_waiting`: requests that one queue may hold. `keep_failures`: whether an infrastructure failure that
    is stored counts as an outcome; otherwise it is deleted, and the request is posted. Raises
    `redis.RedisError`; a repeated call does no harm.
    """
    return _posted(POST(client, [], _arguments(posts, max_waiting, keep_failures)))


async def post_async(
    client: redis.asyncio.Redis, posts: Sequence[Post], max_waiting: int, keep_failures: bool
) -> list[Posted]:
    """As `post`, on the event loop."""
    return _posted(await POST.call_async(client, [], _arguments(posts, max_waiting, keep_failures)))


async def check(
    client: redis.asyncio.Redis, request_ids: Sequence[str]
) -> tuple[dict[str, bytes], list[str]]:
    """The outcomes of the requests that have one, as JSON by id, and the ids that Redis has lost, in order.
    Raises `redis.RedisError`.
    """
    outcomes, lost = {}, []
    for request_id, found in zip(request_ids, await CHECK.call_async(client, [], request_ids), strict=True):
        if found == b"?":
            lost.append(request_id)
        elif found:
            outcomes[request_id] = found
    return outcomes, lost
