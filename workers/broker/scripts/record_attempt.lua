-- Record that a worker starts a request, unless the request has an outcome.
--
-- KEYS[1]  outcome of the request: string, JSON
-- KEYS[2]  attempts of the request: list, oldest first
-- ARGV[1]  seconds until the attempts expire
-- ARGV[2]  this attempt: JSON; a repeated call records it once
-- Returns  {stored outcome or false, attempts including this one}
local stored = redis.call('GET', KEYS[1])
if stored then return {stored, {}} end
if redis.call('LINDEX', KEYS[2], -1) ~= ARGV[2] then redis.call('RPUSH', KEYS[2], ARGV[2]) end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return {false, redis.call('LRANGE', KEYS[2], 0, -1)}
