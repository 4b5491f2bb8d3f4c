-- Find a request of a client that died, or post it. Scans the queue and the unacked hash.
--
-- A stored success or failure of the model counts and is returned. Another failure is deleted, and the request is
-- posted again, unless it was cancelled and still runs. A queued message is replaced in its place.
--
-- KEYS[1]   outcome of the request: string, JSON
-- KEYS[2]   attempts of the request: list
-- KEYS[3]   kombu's unacked hash: delivery tag -> message; kombu removes from its index tags without a message
-- KEYS[4+]  the lists of the queue; a new message is pushed to the first
-- ARGV[1]   request id
-- ARGV[2]   message
-- ARGV[3+]  causes of failure that are the model's
-- Returns   {'done', outcome}, {'running', delivery tag}, {'queued', ''} or {'posted', ''}
local stored, over = redis.call('GET', KEYS[1]), false
if stored then
  local result = cjson.decode(stored).result
  local counts = result.status == 'success'
  for i = 3, #ARGV do counts = counts or result.cause == ARGV[i] end
  if counts then return {'done', stored} end
  redis.call('DEL', KEYS[1], KEYS[2])
  over = result.cause ~= 'cancelled'
end
local function matches(entry)
  return string.match(entry, '"correlation_id": ?"([^"]*)"') == ARGV[1]
end
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do
  if matches(held[i + 1]) then
    if not over then return {'running', held[i]} end
    redis.call('HDEL', KEYS[3], held[i])
  end
end
for k = 4, #KEYS do
  for i, entry in ipairs(redis.call('LRANGE', KEYS[k], 0, -1)) do
    if matches(entry) then
      redis.call('LSET', KEYS[k], i - 1, ARGV[2])
      return {'queued', ''}
    end
  end
end
redis.call('LPUSH', KEYS[4], ARGV[2])
return {'posted', ''}
