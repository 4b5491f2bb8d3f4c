-- Find requests that are queued nowhere, held by no worker and have no outcome. Scans the queues.
--
-- KEYS[1]   kombu's unacked hash: delivery tag -> message
-- KEYS[2+]  the lists of every queue concerned
-- ARGV      per request: its id, the number n of its delivery tags, tag 1 .. tag n
-- Returns   the ids of the lost requests
local suspects, i = {}, 1
while i <= #ARGV do
  local id, n, held = ARGV[i], tonumber(ARGV[i + 1]), false
  for t = i + 2, i + 1 + n do
    if redis.call('HEXISTS', KEYS[1], ARGV[t]) == 1 then held = true end
  end
  if not held and redis.call('EXISTS', 'llmi:outcome:' .. id) == 0 then suspects[id] = true end
  i = i + 2 + n
end
if next(suspects) == nil then return {} end
for k = 2, #KEYS do
  for _, message in ipairs(redis.call('LRANGE', KEYS[k], 0, -1)) do
    local id = string.match(message, '"correlation_id": ?"([^"]*)"')
    if id then suspects[id] = nil end
  end
end
local missing = {}
for id in pairs(suspects) do table.insert(missing, id) end
return missing
