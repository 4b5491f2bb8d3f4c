"""Reattaches to a request of a client that died: uses its outcome or its message, or posts it again.

Invariants:
- One atomic script decides, so that there are never two messages of a request.
- An outcome that the dead client would have got counts: a success, or a failure of the model.
- An infrastructure failure does not count (the deadline passed while no client was there, for example): the
  request is posted again. The worker that stored it is done with the message, so the message is removed, and
  is not requeued if that worker died before its acknowledgement. A request that its client cancelled may
  still run; the client then waits for it.
- A queued message is replaced in its place by one with the new deadline and reply address. A message that a
  worker holds keeps the old ones; its outcome is found by key.

Limits as in `workers.client.blocking`: plain ids, some ms per 1,000 queued messages.
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
    """Find the request or post it under the delivery tag `tag`.

    Returns its state, and with it the outcome as JSON (`done`) or the delivery tag (`running`). Raises
    `redis.RedisError`; a repeated call does no harm.
    """
    keys = [outcome_key(request.request_id), attempts_key(request.request_id), UNACKED]
    keys += queue_lists(request.kind)
    message = encode(request, tag=tag, reply_to=reply_to)
    model_causes = [cause.value for cause in Cause if cause.fault is Fault.MODEL]
    state, found = await REATTACH.call_async(client, keys, [request.request_id, message, *model_causes])
    return state.decode(), found
