-- List the metrics targets that have not expired.
--
-- KEYS[1]  targets: sorted set, target as JSON -> Unix second at which it expires
-- ARGV     none
-- Returns  the targets as JSON
return redis.call('ZRANGEBYSCORE', KEYS[1], redis.call('TIME')[1], '+inf')
