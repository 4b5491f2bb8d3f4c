-- Try every command of the queue on its keys, and report those that fail, for example for lack of permission.
--
-- KEYS      none: undeclared keys are checked and reported command by command
-- ARGV[1]   prefix of the keys that are written and removed
-- ARGV[2+]  command, key pairs on keys of the queue: each removes a member that does not exist
-- Returns   {{command, key, error}, ..}
local failed = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    local command, key = ...
    failed[#failed + 1] = {command, key or '', answer.err}
  end
end
local p = ARGV[1]
try('TIME')
try('SET', p .. 's', '1', 'NX', 'PX', '5000')
try('GET', p .. 's')
try('MGET', p .. 's')
try('EXISTS', p .. 's')
try('EXPIRE', p .. 's', '5')
try('PEXPIRE', p .. 's', '5000')
try('PTTL', p .. 's')
try('HSET', p .. 'h', 'a', '1')
try('HGET', p .. 'h', 'a')
try('HGETALL', p .. 'h')
try('HVALS', p .. 'h')
try('HEXISTS', p .. 'h', 'a')
try('HINCRBY', p .. 'h', 'a', '1')
try('HINCRBYFLOAT', p .. 'h', 'a', '1')
try('HDEL', p .. 'h', 'a')
try('LPUSH', p .. 'l', '1')
try('RPUSH', p .. 'l', '2')
try('LSET', p .. 'l', '0', '1')
try('LINDEX', p .. 'l', '0')
try('LRANGE', p .. 'l', '0', '-1')
try('LLEN', p .. 'l')
try('LREM', p .. 'l', '1', '2')
try('ZADD', p .. 'z', '1', 'a')
try('ZINCRBY', p .. 'z', '1', 'a')
try('ZSCORE', p .. 'z', 'a')
try('ZRANGE', p .. 'z', '0', '-1')
try('ZREVRANGEBYSCORE', p .. 'z', '1', '0')
try('ZREMRANGEBYSCORE', p .. 'z', '0', '9')
try('SADD', p .. 'm', 'a')
try('SMEMBERS', p .. 'm')
try('XADD', p .. 'x', 'MAXLEN', '~', '10', '*', 'a', '1')
try('DEL', p .. 's', p .. 'h', p .. 'l', p .. 'z', p .. 'm', p .. 'x')
for i = 2, #ARGV, 2 do
  if ARGV[i] == 'LREM' then try('LREM', ARGV[i + 1], '1', p) else try(ARGV[i], ARGV[i + 1], p) end
end
return failed
