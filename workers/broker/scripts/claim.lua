-- Move the next requests from their queues to one worker, in one step: a request is queued or held, never between.
--
-- The next request is the one with the smallest time of posting plus its level times `ageing`. A request of a low
-- level therefore waits for younger ones of a higher level, but not for ever.
--
-- KEYS      the lists of the queues
-- ARGV[1]   requests to claim at most
-- ARGV[2]   microseconds of the lease
-- ARGV[3]   name of the worker
-- ARGV[4]   microseconds of `ageing`
-- ARGV[5+]  per list: its queue, its level as a number
-- Returns   {claim, ..}; a claim: {id, number of this claim, queue, message, reply stream, microseconds since it was
--           posted, until its deadline, until its latest start, lost attempts as a JSON array, how often it was claimed}.
--           An entry that cannot be an id: {entry, 0, queue}. It is removed.
local SKIPPED = 1000  -- entries without a request (cancelled ones) that one call removes from a list

local function pop(i)
  redis.call('RPOP', KEYS[i])
  local counter = 'llmi:queue:' .. ARGV[5 + 2 * (i - 1)]
  redis.call('HINCRBY', counter, 'popped:' .. ARGV[6 + 2 * (i - 1)], 1)
  redis.call('EXPIRE', counter, 86400)
end

local function head(i)
  for _ = 1, SKIPPED do
    local id = redis.call('LINDEX', KEYS[i], -1)
    if not id then return nil end
    if #id > 128 then return {id = id, due = 0, invalid = true} end
    local found = redis.call('HMGET', record_key(id), 'state', 'posted', 'queue', 'level')
    -- An entry that a cancelled request left may name one that was posted again, to another list.
    local here = found[3] == ARGV[5 + 2 * (i - 1)] and found[4] == ARGV[6 + 2 * (i - 1)]
    if found[1] == 'waiting' and here then
      return {id = id, due = found[2] + ARGV[6 + 2 * (i - 1)] * ARGV[4]}
    end
    pop(i)
  end
end

local function claim(id, queue)
  local record = record_key(id)
  local attempt = redis.call('HINCRBY', record, 'claims', 1)
  redis.call('HSET', record, 'state', 'held', 'worker', ARGV[3], 'claimed', whole(now), 'number', whole(now))
  redis.call('ZADD', held_key(queue), whole(now + ARGV[2]), id)
  local found = redis.call('HMGET', record, 'message', 'reply_to', 'posted', 'deadline', 'start_by', 'lost')
  return {id, whole(now), queue, found[1], found[2], whole(now - found[3]),
    whole(found[4] - now), whole(found[5] - now), found[6] or '[]', attempt}
end

local heads, claims = {}, {}
for i = 1, #KEYS do heads[i] = head(i) end
while #claims < tonumber(ARGV[1]) do
  local best
  for i = 1, #KEYS do
    if heads[i] and (not best or heads[i].due < heads[best].due) then best = i end
  end
  if not best then break end
  local queue = ARGV[5 + 2 * (best - 1)]
  pop(best)
  claims[#claims + 1] = heads[best].invalid and {heads[best].id, 0, queue} or claim(heads[best].id, queue)
  heads[best] = head(best)
end
for i = 1, #KEYS do  -- another idle worker continues, or this one where it has only skipped entries
  if redis.call('LLEN', KEYS[i]) > 0 then wake(ARGV[5 + 2 * (i - 1)]) end
end
return claims
