-- Replace the state of a circuit breaker if nobody has changed it since it was read.
--
-- KEYS[1]  breakers: hash, "QUEUE PROVIDER" -> state as JSON
-- ARGV[1]  field of the hash
-- ARGV[2]  state that was read, '' for none
-- ARGV[3]  new state, '' to remove it
-- ARGV[4]  seconds until the hash expires
-- Returns  1 if it was replaced, 0 if the state had changed
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return 1
