-- Keep one metrics target listed.
--
-- KEYS[1]  targets: sorted set, target as JSON -> Unix second at which it expires
-- ARGV[1]  target: JSON
-- ARGV[2]  seconds until it expires
-- Returns  1
redis.call('ZADD', KEYS[1], redis.call('TIME')[1] + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], 2 * ARGV[2])
return 1
