-- Find where one request is. Scans its queue and the unacked hash.
--
-- KEYS[1]   outcome of the request: string
-- KEYS[2]   attempts of the request: list
-- KEYS[3]   kombu's unacked hash: delivery tag -> message
-- KEYS[4]   kombu's unacked index: sorted set, delivery tag -> when its lease was renewed
-- KEYS[5+]  the lists of the queue, in the order in which they are consumed
-- ARGV[1]   request id, as messages hold it
-- Returns   {1 if it has an outcome, number of attempts, ms until these expire,
--            when its lease was renewed or false, messages consumed before it or -1 if it is not queued}
local function names(message)
  return string.find(message, '"correlation_id": "' .. ARGV[1] .. '"', 1, true)
    or string.find(message, '"correlation_id":"' .. ARGV[1] .. '"', 1, true)
end
local renewed = false
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do
  if names(held[i + 1]) then renewed = redis.call('ZSCORE', KEYS[4], held[i]) end
end
local before, place = 0, -1
for k = 5, #KEYS do
  local messages = redis.call('LRANGE', KEYS[k], 0, -1)
  for i = #messages, 1, -1 do
    if place < 0 and names(messages[i]) then place = before end
    before = before + 1
  end
end
return {redis.call('EXISTS', KEYS[1]), redis.call('LLEN', KEYS[2]), redis.call('PTTL', KEYS[2]),
  renewed, place}
