-- Read the states of all circuit breakers and the time of the server.
--
-- KEYS[1]  breakers: hash, "QUEUE PROVIDER" -> state as JSON
-- ARGV     none
-- Returns  {{field, state, field, state, ..}, {seconds, microseconds}}
return {redis.call('HGETALL', KEYS[1]), redis.call('TIME')}
