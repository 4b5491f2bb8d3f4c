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

from collections.abc import Awaitable
from typing import Any, Literal, cast

import redis.asyncio

from workers.broker.keys import UNACKED, attempts_key, outcome_key, queue_lists
from workers.client.publisher import encode
from workers.errors import Cause, Fault
from workers.messages import Request

State = Literal["done", "running", "queued", "posted"]

# KEYS: outcome, attempts, the unacked hash, then the lists of the queue. ARGV: id, message, causes that are
# the model's. Returns the state, and with it the outcome (done) or the delivery tag (running). kombu itself
# takes a tag without a message from its index.
SCRIPT = """
local stored, over = redis.call('GET', KEYS[1]), false
if stored then
  local result = cjson.decode(stored).result
  local counts = result.status == 'success'
  for i = 3, #ARGV do counts = counts or result.cause == ARGV[i] end
  if counts then return {'done', stored} end
  redis.call('DEL', KEYS[1], KEYS[2])
  over = result.cause ~= 'cancelled'
end
local function ours(entry)
  return string.match(entry, '"correlation_id": ?"([^"]*)"') == ARGV[1]
end
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do
  if ours(held[i + 1]) then
    if not over then return {'running', held[i]} end
    redis.call('HDEL', KEYS[3], held[i])
  end
end
for k = 4, #KEYS do
  for i, entry in ipairs(redis.call('LRANGE', KEYS[k], 0, -1)) do
    if ours(entry) then
      redis.call('LSET', KEYS[k], i - 1, ARGV[2])
      return {'queued', ''}
    end
  end
end
redis.call('LPUSH', KEYS[4], ARGV[2])
return {'posted', ''}
"""


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
    answer = client.eval(SCRIPT, len(keys), *keys, request.request_id, message, *blamed)
    state, with_it = await cast(Awaitable[Any], answer)
    return state.decode(), with_it
