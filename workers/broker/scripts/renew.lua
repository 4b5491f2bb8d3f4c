-- Renew the leases of claims that one worker holds.
--
-- KEYS      none: the keys are made from the arguments
-- ARGV[1]   microseconds of the lease
-- ARGV[2+]  per claim: queue, request id, number of the claim
-- Returns   {{ids that are not held under that claim any more}, {ids that were cancelled}, {seconds, microseconds}}
local expires = whole(now + ARGV[1])
local lost, cancelled = {}, {}
for i = 2, #ARGV, 3 do
  local id = ARGV[i + 1]
  local found = redis.call('HMGET', record_key(id), 'state', 'claims')
  if found[1] == 'held' and found[2] == ARGV[i + 2] then
    redis.call('ZADD', held_key(ARGV[i]), 'XX', expires, id)
    if redis.call('EXISTS', 'llmi:outcome:' .. id) == 1 then cancelled[#cancelled + 1] = id end
  else
    lost[#lost + 1] = id
  end
end
return {lost, cancelled, clock}
