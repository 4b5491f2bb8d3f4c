-- Store an outcome unless a better one is stored, count the request once, end its delivery, and notify its client.
--
-- KEYS[1]  outcome of the request: string, JSON
-- KEYS[2]  record of the request: hash
-- KEYS[3]  totals: hash with KIND:n, KIND:ran, KIND:service_s
-- ARGV[1]  outcome: JSON
-- ARGV[2]  '1' if it is a success
-- ARGV[3]  seconds until the keys expire
-- ARGV[4]  request id
-- ARGV[5]  entries kept in the reply stream
-- ARGV[6]  kind
-- ARGV[7]  seconds the job ran, '' if it was not started
-- ARGV[8]  reply stream for a request without a record, '' for none
-- ARGV[9]  '1': the request is cancelled. If a worker holds it, its record stays until the job has ended
-- ARGV[10] number of the claim under which the job ran, '0' for none. The failure of an earlier claim is ignored:
--          the request is queued or held again
-- Returns  the stored outcome, which may be an earlier one; the client is notified of that one. If there is none,
--          the given one
local visible = redis.call('GET', KEYS[1])
local found = redis.call('HMGET', KEYS[2], 'state', 'queue', 'reply_to', 'worker', 'number')
local earlier = ARGV[10] ~= '0' and found[1] and (found[1] ~= 'held' or found[5] ~= ARGV[10])
if earlier and ARGV[2] ~= '1' then return visible or ARGV[1] end
if not visible then
  redis.call('HINCRBY', KEYS[3], ARGV[6] .. ':n', 1)
  if ARGV[7] ~= '' then
    redis.call('HINCRBY', KEYS[3], ARGV[6] .. ':ran', 1)
    redis.call('HINCRBYFLOAT', KEYS[3], ARGV[6] .. ':service_s', ARGV[7])
  end
  redis.call('EXPIRE', KEYS[3], ARGV[3])
end
if not visible or (ARGV[2] == '1' and cjson.decode(visible).result.status ~= 'success') then
  visible = ARGV[1]
  redis.call('SET', KEYS[1], visible, 'EX', ARGV[3])
end
local reply_to = found[3] or ARGV[8]
if found[1] == 'held' and ARGV[9] == '1' then
  local cancelled = 'llmi:cancelled:' .. found[4]
  redis.call('LPUSH', cancelled, ARGV[4] .. '/' .. found[5])
  redis.call('EXPIRE', cancelled, 60)
  redis.call('HSET', KEYS[2], 'reply_to', '')  -- the client may be closed when the job ends
elseif found[1] then
  redis.call('ZREM', held_key(found[2]), ARGV[4])
  redis.call('DEL', KEYS[2])
end
if string.sub(reply_to, 1, 13) == 'llmi:replies:' then
  redis.call('XADD', reply_to, 'MAXLEN', '~', ARGV[5], '*', 'id', ARGV[4])
  redis.call('EXPIRE', reply_to, ARGV[3])
end
return visible
