-- Read the state of one circuit breaker and the time of the server.
--
-- KEYS[1]  breakers: hash, "QUEUE PROVIDER" -> state as JSON
-- ARGV[1]  field of the hash
-- Returns  {state or false, {seconds, microseconds}}
return {redis.call('HGET', KEYS[1], ARGV[1]), redis.call('TIME')}
