-- Keep one metrics target listed, and remove those that have expired.
--
-- KEYS[1]  targets: sorted set, target as JSON -> Unix second at which it expires
-- ARGV[1]  target: JSON
-- ARGV[2]  seconds until it expires
-- Returns  1
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], 2 * ARGV[2])
return 1
