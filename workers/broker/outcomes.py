"""Where requests and their outcomes lie in Redis: key names, and the scripts that change them atomically.

Invariants: one request id has one stored outcome; a success may replace a failure, never the other way round;
storing an outcome, counting it and telling the producer's reply stream is one transaction; each request is
counted once. Keys start with `llmi:` and expire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, cast

import redis
import redis.asyncio

from workers.broker.keys import NO_REPLIES, STATS, UNACKED, attempts_key, outcome_key, queue_lists
from workers.messages import Message, Outcome

REPLIES_KEPT = 10_000  # entries of one reply stream; whoever fell further behind finds outcomes by key


# KEYS: outcome, reply stream (NO_REPLIES for none), totals. ARGV: outcome JSON, '1' if a success, seconds to
# live, id, entries kept in the stream, kind, seconds it ran ('' if it never did).
# Returns the outcome that is visible now, which may be an earlier one; the producer is told that one.
COMMIT = """
local visible = redis.call('GET', KEYS[1])
if not visible then
  redis.call('HINCRBY', KEYS[3], ARGV[6] .. ':n', 1)
  if ARGV[7] ~= '' then
    redis.call('HINCRBY', KEYS[3], ARGV[6] .. ':ran', 1)
    redis.call('HINCRBYFLOAT', KEYS[3], ARGV[6] .. ':service_s', ARGV[7])
  end
  redis.call('EXPIRE', KEYS[3], ARGV[3])
end
if not visible or (ARGV[2] == '1' and cjson.decode(visible).result.status ~= 'success') then
  visible = ARGV[1]
  redis.call('SET', KEYS[1], visible, 'EX', ARGV[3])
end
if KEYS[2] ~= 'llmi:replies:-' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'id', ARGV[4], 'outcome', visible)
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
return visible
"""

# KEYS: outcome, attempts. ARGV: time to live in s, this attempt. Returns {stored outcome or false, attempts
# with this one}.
BEGIN = """
local stored = redis.call('GET', KEYS[1])
if stored then return {stored, {}} end
if redis.call('LINDEX', KEYS[2], -1) ~= ARGV[2] then redis.call('RPUSH', KEYS[2], ARGV[2]) end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return {false, redis.call('LRANGE', KEYS[2], 0, -1)}
"""

# KEYS: the unacked hash, then the lists of every queue concerned. ARGV: request ids, each with its delivery
# tags: id, n, tag 1 .. tag n. Returns the ids that are in none of them and have no outcome.
MISSING = """
local suspects, i = {}, 1
while i <= #ARGV do
  local id, n, held = ARGV[i], tonumber(ARGV[i + 1]), false
  for t = i + 2, i + 1 + n do
    if redis.call('HEXISTS', KEYS[1], ARGV[t]) == 1 then held = true end
  end
  if not held and redis.call('EXISTS', 'llmi:outcome:' .. id) == 0 then suspects[id] = true end
  i = i + 2 + n
end
if next(suspects) == nil then return {} end
for k = 2, #KEYS do
  for _, message in ipairs(redis.call('LRANGE', KEYS[k], 0, -1)) do
    local id = string.match(message, '"correlation_id": ?"([^"]*)"')
    if id then suspects[id] = nil end
  end
end
local missing = {}
for id in pairs(suspects) do table.insert(missing, id) end
return missing
"""


class Attempt(Message):
    """A worker began a request. `worker`: host and process; `begun` in Unix seconds, by its clock."""

    worker: str
    begun: float


def _commit_arguments(outcome: Outcome, reply_to: str, ttl_s: int) -> tuple[list[str], list[str]]:
    keys = [outcome_key(outcome.request_id), reply_to or NO_REPLIES, STATS]
    ran = outcome.started > 0 and outcome.finished > 0
    return keys, [
        outcome.model_dump_json(),
        str(int(outcome.ok)),
        str(ttl_s),
        outcome.request_id,
        str(REPLIES_KEPT),
        outcome.kind,
        f"{outcome.finished - outcome.started:.6f}" if ran else "",
    ]


def commit(client: redis.Redis, outcome: Outcome, reply_to: str, ttl_s: int) -> bytes:
    """Store `outcome` unless a better one is there, tell the producer; returns the visible one's JSON."""
    keys, arguments = _commit_arguments(outcome, reply_to, ttl_s)
    return cast(bytes, client.eval(COMMIT, len(keys), *keys, *arguments))


async def commit_async(client: redis.asyncio.Redis, outcome: Outcome, reply_to: str, ttl_s: int) -> bytes:
    """`commit` for the event loop."""
    keys, arguments = _commit_arguments(outcome, reply_to, ttl_s)
    return cast(bytes, await cast(Awaitable[Any], client.eval(COMMIT, len(keys), *keys, *arguments)))


def record_attempt(
    client: redis.Redis, request_id: str, attempt: Attempt, ttl_s: int
) -> tuple[bytes | None, tuple[Attempt, ...]]:
    """Note that a worker begins a request. Returns the outcome if it already has one (then nothing is noted),
    and every attempt so far, this one last. Asked twice about one attempt, it is noted once.
    """
    keys = [outcome_key(request_id), attempts_key(request_id)]
    this = attempt.model_dump_json()
    stored, noted = cast(list[Any], client.eval(BEGIN, len(keys), *keys, str(ttl_s), this))
    return stored, tuple(Attempt.model_validate_json(one) for one in noted)


def remove_attempt(client: redis.Redis, request_id: str, attempt: Attempt) -> None:
    """Take back one `begin`: the request is put back into its queue, and nothing went wrong with it."""
    client.lrem(attempts_key(request_id), -1, attempt.model_dump_json())


async def find_lost(
    client: redis.asyncio.Redis, requests: Sequence[tuple[str, Sequence[str]]], queues: Sequence[str]
) -> set[str]:
    """Of (request id, delivery tags) pairs, the ids that are queued nowhere, held by no worker and have no
    outcome.
    """
    keys = [UNACKED, *(key for queue in queues for key in queue_lists(queue))]
    arguments: list[str] = []
    for request_id, tags in requests:
        arguments += [request_id, str(len(tags)), *tags]
    found = await cast(Awaitable[Any], client.eval(MISSING, len(keys), *keys, *arguments))
    return {request_id.decode() for request_id in found}
