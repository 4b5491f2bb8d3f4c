-- Make every lease older, as if each worker had been silent.
--
-- KEYS[1]  kombu's unacked index: sorted set, delivery tag -> when its lease was renewed
-- ARGV[1]  seconds
-- Returns  nothing
for _, tag in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  redis.call('ZINCRBY', KEYS[1], -tonumber(ARGV[1]), tag)
end
