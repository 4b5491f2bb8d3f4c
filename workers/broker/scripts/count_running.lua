-- Count what workers hold, per queue, without sending the messages. Scans the unacked hash.
--
-- KEYS[1]  kombu's unacked hash: delivery tag -> [message, exchange, routing key]
-- ARGV     none
-- Returns  {queue, count, queue, count, ..}
local held = {}
for _, entry in ipairs(redis.call('HVALS', KEYS[1])) do
  local queue = string.match(entry, '"([^"]*)"%]$')
  if queue then held[queue] = (held[queue] or 0) + 1 end
end
local answer = {}
for queue, count in pairs(held) do table.insert(answer, queue); table.insert(answer, count) end
return answer
