-- Store an outcome unless a better one is stored, count the request once, and notify its client.
--
-- KEYS[1]  outcome of the request: string, JSON
-- KEYS[2]  reply stream of the client, or llmi:replies:- for none
-- KEYS[3]  totals: hash with KIND:n, KIND:ran, KIND:service_s
-- ARGV[1]  outcome: JSON
-- ARGV[2]  '1' if it is a success
-- ARGV[3]  seconds until the keys expire
-- ARGV[4]  request id
-- ARGV[5]  entries kept in the reply stream
-- ARGV[6]  kind
-- ARGV[7]  seconds the job ran, '' if it was not started
-- Returns  the stored outcome, which may be an earlier one; the client is notified of that one
local visible = redis.call('GET', KEYS[1])
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
if KEYS[2] ~= 'llmi:replies:-' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'id', ARGV[4], 'outcome', visible)
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
return visible
