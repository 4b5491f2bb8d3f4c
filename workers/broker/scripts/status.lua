-- Read where one request is.
--
-- KEYS[1]  outcome of the request: string
-- KEYS[2]  record of the request: hash
-- ARGV[1]  request id
-- Returns  {outcome or false, state or false, requests before it at most, worker, microseconds since it was claimed,
--          microseconds until its lease expires (negative: it has expired), number of lost attempts}
local outcome = redis.call('GET', KEYS[1])
local found = redis.call('HMGET', KEYS[2], 'state', 'queue', 'level', 'place', 'worker', 'claimed', 'lost')
if not found[1] then return {outcome, false, 0, '', 0, 0, 0} end
local queue, before, left, since = found[2], 0, 0, 0
if found[1] == 'waiting' then
  for _, level in ipairs(LEVELS) do
    local length = redis.call('LLEN', list_key(queue, level))
    if level < found[3] then
      before = before + length
    elseif level == found[3] then
      local popped = tonumber(redis.call('HGET', 'llmi:queue:' .. queue, 'popped:' .. level) or 0)
      before = before + math.max(0, math.min(length, found[4] - popped) - 1)
    end
  end
else
  left = (redis.call('ZSCORE', held_key(queue), ARGV[1]) or 0) - now
  since = now - found[6]
end
return {outcome, found[1], before, found[5] or '', whole(since), whole(left),
  #cjson.decode(found[7] or '[]')}
