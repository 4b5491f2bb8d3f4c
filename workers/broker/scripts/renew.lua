-- Renew the leases of claims that one worker holds.
--
-- KEYS      none: the keys are made from the arguments
-- ARGV[1]   microseconds of the lease
-- ARGV[2+]  per claim: queue, request id, number of the claim
-- Returns   {{claims that are not held any more}, {cancelled ones}, {seconds, microseconds}}; claims by their place
--           among the arguments, the first is 0
local expires = whole(now + ARGV[1])
local lost, cancelled = {}, {}
for i = 2, #ARGV, 3 do
  local id = ARGV[i + 1]
  local found = redis.call('HMGET', record_key(id), 'state', 'number')
  if found[1] == 'held' and found[2] == ARGV[i + 2] then
    redis.call('ZADD', held_key(ARGV[i]), 'XX', expires, id)
    if redis.call('EXISTS', 'llmi:outcome:' .. id) == 1 then cancelled[#cancelled + 1] = (i - 2) / 3 end
  else
    lost[#lost + 1] = (i - 2) / 3
  end
end
return {lost, cancelled, clock}
