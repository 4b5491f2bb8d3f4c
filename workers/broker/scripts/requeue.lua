-- Put held requests back to the head of their queues: given ones, or those whose leases have expired.
--
-- KEYS      none: the keys are made from the arguments
-- ARGV[1]   'returned' (nothing went wrong), 'lost' (the process that ran it died) or 'expired' (its worker is silent)
-- ARGV[2+]  with 'expired' the queues; otherwise per claim: queue, request id, number of the claim
-- Returns   {queue, id, worker that held it, ..} of what was requeued; the next to be consumed last
local requeued = {}

local function requeue(queue, id, number)
  local record = record_key(id)
  local found = redis.call('HMGET', record, 'state', 'claims', 'worker', 'claimed', 'lost', 'level')
  if found[1] ~= 'held' or (number and found[2] ~= number) then
    if not number then redis.call('ZREM', held_key(queue), id) end
    return
  end
  if ARGV[1] ~= 'returned' then
    local lost = cjson.decode(found[5] or '[]')
    lost[#lost + 1] = {worker = found[3], started = found[4] / 1000000}
    redis.call('HSET', record, 'lost', cjson.encode(lost))
  end
  redis.call('HSET', record, 'state', 'waiting')
  redis.call('ZREM', held_key(queue), id)
  redis.call('RPUSH', list_key(queue, found[6]), id)
  redis.call('HINCRBY', 'llmi:queue:' .. queue, 'popped:' .. found[6], -1)
  wake(queue)
  requeued[#requeued + 1] = queue
  requeued[#requeued + 1] = id
  requeued[#requeued + 1] = found[3]
end

if ARGV[1] == 'expired' then
  for i = 2, #ARGV do
    local held = held_key(ARGV[i])
    local expired = redis.call('ZRANGEBYSCORE', held, '-inf', whole(now), 'LIMIT', 0, 100)
    for k = #expired, 1, -1 do requeue(ARGV[i], expired[k]) end
  end
else
  for i = 2, #ARGV, 3 do requeue(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
end
return requeued
