-- Post requests that are not in Redis yet, while their queue has room. Scans the queue and the unacked hash.
--
-- KEYS[1]   kombu's unacked hash: delivery tag -> message
-- KEYS[2+]  the lists of the queue; new messages are pushed to the first
-- ARGV[1]   messages that the queue may hold, 0 to post none
-- ARGV[2+]  per request: its id, its message
-- Returns   {id, state, id, state, ..}; state: absent (no room), posted (by this call), queued, running, done
local state = {}
for i = 2, #ARGV, 2 do
  state[ARGV[i]] = redis.call('EXISTS', 'llmi:outcome:' .. ARGV[i]) == 1 and 'done' or 'absent'
end
local function mark(entries, name)
  for _, entry in ipairs(entries) do
    local id = string.match(entry, '"correlation_id": ?"([^"]*)"')
    if id and state[id] == 'absent' then state[id] = name end
  end
end
mark(redis.call('HVALS', KEYS[1]), 'running')
for k = 2, #KEYS do mark(redis.call('LRANGE', KEYS[k], 0, -1), 'queued') end
local answer = {}
local room = tonumber(ARGV[1])
if room > 0 then
  for k = 2, #KEYS do room = room - redis.call('LLEN', KEYS[k]) end
end
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  if state[id] == 'absent' and room > 0 then
    redis.call('LPUSH', KEYS[2], ARGV[i + 1])
    state[id] = 'posted'
    room = room - 1
  end
  table.insert(answer, id)
  table.insert(answer, state[id])
end
return answer
