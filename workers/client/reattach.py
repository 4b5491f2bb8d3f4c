"""Takes up a request of a poster that died: what has an answer is told it, what is under way is joined, what
is nowhere is posted.

Invariants: one atomic step decides, so that at no moment there are two messages of it; an answer that the
dead poster would have got counts, be it a success or the model's fault; a failure of infrastructure that
nobody was told (the deadline passed while nobody was there, say) does not, and the request is posted anew.
The worker that stored it has done with the message, so this is taken from it, and cannot come back from one
that died before it said so; but what its poster cancelled may still run, and is joined. A message that still
waits is replaced in its place by one with the new deadline and reply address. What a worker holds keeps its
old ones, and its outcome is found by its key. Limits as in `workers.client.blocking`: plain ids, some ms per
1,000 waiting.
"""

from __future__ import annotations

from typing import Literal

import redis.asyncio

from workers.broker.keys import UNACKED, attempts_key, outcome_key, queue_lists
from workers.client.publisher import encode
from workers.errors import Cause, Fault
from workers.messages import Request
from workers.redis_script import Script

State = Literal["done", "running", "queued", "posted"]

REATTACH = Script("workers.client.scripts", "reattach")


async def reattach(
    client: redis.asyncio.Redis, request: Request, *, tag: str, reply_to: str
) -> tuple[State, bytes]:
    """The state in which the request is now, with its outcome (`done`) or delivery tag (`running`). Raises
    `redis.RedisError`; asking again is harmless.
    """
    keys = [outcome_key(request.request_id), attempts_key(request.request_id), UNACKED]
    keys += queue_lists(request.kind)
    message = encode(request, tag=tag, reply_to=reply_to)
    blamed = [cause.value for cause in Cause if cause.fault is Fault.MODEL]
    state, with_it = await REATTACH.call_async(client, keys, [request.request_id, message, *blamed])
    return state.decode(), with_it
