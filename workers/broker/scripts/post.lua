-- Post requests, each unless it is queued, held or over. One call posts many.
--
-- A request that is queued or held is updated: its message, reply stream and deadline become those of this call.
-- A stored outcome that counts is returned. Another one is deleted, and the request is posted again; while a worker
-- still holds the cancelled request, nothing is changed, since that worker may end it at any moment.
--
-- KEYS      none: the keys are made from the arguments
-- ARGV[1]   requests that one queue may hold
-- ARGV[2]   seconds that a record is kept after the deadline
-- ARGV[3]   causes of failure that count, separated by commas; '*': every outcome counts
-- ARGV[4+]  per request: id, queue, level, message, reply stream, microseconds until the deadline, and until the
--           latest start
-- Returns   per request {state, detail}: {'posted', queue length}, {'waiting', ''}, {'running', ''}, {'cancelled', ''},
--           {'done', outcome} or {'full', queue length}
local function counts(stored)
  if ARGV[3] == '*' then return true end
  local result = cjson.decode(stored).result
  return result.status == 'success' or string.find(',' .. ARGV[3] .. ',', ',' .. result.cause .. ',', 1, true)
end

local function post(id, queue, level, message, reply_to, left, start_left)
  local record, outcome = record_key(id), 'llmi:outcome:' .. id
  local stored = redis.call('GET', outcome)
  local state = redis.call('HGET', record, 'state')
  if stored then
    if counts(stored) then return {'done', stored} end
    if state == 'held' then return {'cancelled', ''} end
    redis.call('DEL', outcome)
  end
  local fields = {'message', message, 'reply_to', reply_to,
    'deadline', whole(now + left), 'start_by', whole(now + start_left)}
  local ttl = math.max(1, math.floor(left / 1000000) + ARGV[2])
  if state then
    redis.call('HSET', record, unpack(fields))
    redis.call('EXPIRE', record, ttl)
    return {state == 'held' and 'running' or 'waiting', ''}
  end
  local length = 0
  for _, each in ipairs(LEVELS) do length = length + redis.call('LLEN', list_key(queue, each)) end
  if length >= tonumber(ARGV[1]) then return {'full', length} end
  local counter = 'llmi:queue:' .. queue
  local place = redis.call('HINCRBY', counter, 'posted:' .. level, 1)
  redis.call('EXPIRE', counter, 86400)
  redis.call('HSET', record, 'queue', queue, 'level', level, 'state', 'waiting', 'claims', 0, 'place', place,
    'posted', whole(now), unpack(fields))
  redis.call('EXPIRE', record, ttl)
  redis.call('LPUSH', list_key(queue, level), id)
  wake(queue)
  return {'posted', length + 1}
end

local answers = {}
for i = 4, #ARGV, 7 do
  answers[#answers + 1] = post(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4],
    tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]))
end
return answers
