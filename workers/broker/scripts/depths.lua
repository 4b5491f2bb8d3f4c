-- Read the depths of queues at one moment.
--
-- KEYS     none: the keys are made from the arguments
-- ARGV     the queues
-- Returns  per queue {waiting at level 0, at level 3, at level 6, held, microseconds since the oldest was posted}
local answers = {}
for i, queue in ipairs(ARGV) do
  local depth, oldest = {}, 0
  for n, level in ipairs(LEVELS) do
    local list = list_key(queue, level)
    depth[n] = redis.call('LLEN', list)
    local id = redis.call('LINDEX', list, -1)
    local posted = id and redis.call('HGET', record_key(id), 'posted')
    if posted then oldest = math.max(oldest, now - posted) end
  end
  depth[4] = redis.call('ZCARD', held_key(queue))
  depth[5] = whole(oldest)
  answers[i] = depth
end
return answers
