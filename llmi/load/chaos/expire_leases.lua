-- Let every lease expire, as if each worker had been silent.
--
-- KEYS     the sorted sets of held requests: id -> when its lease expires
-- ARGV     none
-- Returns  nothing
for _, key in ipairs(KEYS) do
  for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZADD', key, 0, id) end
end
