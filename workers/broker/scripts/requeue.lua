-- Put held requests back to the head of their queues: given ones, or those whose leases have expired.
--
-- Leases go by the clock of Redis (`now` of queue.lua).
--
-- Requests of one list stay in their order. The delivery of a request that was cancelled meanwhile ends instead.
--
-- KEYS      none: the keys are made from the arguments
-- ARGV[1]   'returned' (nothing went wrong), 'lost' (the process that ran it died), 'expired' (its worker is silent) or
--           'unknown' (its worker did not get the answer to its claim)
-- ARGV[2+]  with 'expired' the queues; with 'unknown' the worker, the number of queues, the queues, and per claim that
--           the worker knows: request id, number; otherwise per claim: queue, request id, number
-- Returns   {queue, id, worker that held it, ..} of what was requeued; the next to be consumed last
local found, requeued = {}, {}

local function requeue(queue, id, number)
  local record = record_key(id)
  local last = redis.call('HMGET', record, 'state', 'number', 'worker', 'claimed', 'lost', 'level')
  if last[1] ~= 'held' or (number and last[2] ~= number) then
    if not number then redis.call('ZREM', held_key(queue), id) end
    return
  end
  if redis.call('EXISTS', 'llmi:outcome:' .. id) == 1 then
    redis.call('ZREM', held_key(queue), id)
    redis.call('DEL', record)
    return
  end
  if ARGV[1] == 'lost' or ARGV[1] == 'expired' then
    local lost = cjson.decode(last[5] or '[]')
    lost[#lost + 1] = {worker = last[3], started = last[4] / 1000000}
    redis.call('HSET', record, 'lost', cjson.encode(lost))
  end
  redis.call('HSET', record, 'state', 'waiting')
  redis.call('ZREM', held_key(queue), id)
  redis.call('RPUSH', list_key(queue, last[6]), id)
  redis.call('HINCRBY', 'llmi:queue:' .. queue, 'popped:' .. last[6], -1)
  wake(queue)
  requeued[#requeued + 1] = queue
  requeued[#requeued + 1] = id
  requeued[#requeued + 1] = last[3]
end

local function add(queue, id, number)
  local place = tonumber(redis.call('HGET', record_key(id), 'place') or 0)
  found[#found + 1] = {queue = queue, id = id, number = number, place = place}
end

if ARGV[1] == 'expired' then
  for i = 2, #ARGV do
    local held = held_key(ARGV[i])
    local expired = redis.call('ZRANGEBYSCORE', held, '-inf', whole(now), 'LIMIT', 0, 100)
    for _, id in ipairs(expired) do add(ARGV[i], id) end
  end
elseif ARGV[1] == 'unknown' then  -- reads what all workers hold, not what is queued
  local first, known = 4 + ARGV[3], {}
  for i = first, #ARGV, 2 do known[ARGV[i]] = ARGV[i + 1] end
  for i = 4, first - 1 do
    for _, id in ipairs(redis.call('ZRANGE', held_key(ARGV[i]), 0, -1)) do
      local last = redis.call('HMGET', record_key(id), 'worker', 'number')
      if last[1] == ARGV[2] and last[2] ~= known[id] then add(ARGV[i], id, last[2]) end
    end
  end
else
  for i = 2, #ARGV, 3 do add(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
end
table.sort(found, function(one, other) return one.place > other.place end)
for _, one in ipairs(found) do requeue(one.queue, one.id, one.number) end
return requeued
