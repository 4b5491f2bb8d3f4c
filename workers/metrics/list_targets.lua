-- Remove expired metrics targets and list the others.
--
-- KEYS[1]  targets: sorted set, target as JSON -> Unix second at which it expires
-- ARGV     none
-- Returns  the targets as JSON
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
