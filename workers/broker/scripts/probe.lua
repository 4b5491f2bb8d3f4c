-- Try every command of the queue on its keys, and report those that fail, for example for lack of permission.
--
-- KEYS      none: undeclared keys are checked and reported command by command
-- ARGV[1]   prefix of the keys that are written and removed
-- ARGV[2]   '1': also the commands of workers
-- ARGV[3+]  keys of the queue: their types are checked, and that they can be written. They are not changed
-- Returns   {{command, key, error}, ..}
local failed = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    local command, key = ...
    failed[#failed + 1] = {command, key or '', answer.err}
    return false
  end
  return true
end
local p = ARGV[1]
try('TIME')
try('SET', p .. 's', '1', 'NX', 'PX', '5000')
try('GET', p .. 's')
try('MGET', p .. 's')
try('EXISTS', p .. 's')
try('EXPIRE', p .. 's', '5')
try('PEXPIRE', p .. 's', '5000')
try('HSET', p .. 'h', 'a', '1')
try('HGET', p .. 'h', 'a')
try('HMGET', p .. 'h', 'a')
try('HGETALL', p .. 'h')
try('HINCRBY', p .. 'h', 'a', '1')
try('HINCRBYFLOAT', p .. 'h', 'a', '1')
try('LPUSH', p .. 'l', '1')
try('LINDEX', p .. 'l', '0')
try('LRANGE', p .. 'l', '0', '-1')
try('LLEN', p .. 'l')
try('ZADD', p .. 'z', '1', 'a')
try('ZSCORE', p .. 'z', 'a')
try('ZCARD', p .. 'z')
try('ZRANGE', p .. 'z', '0', '-1')
try('ZRANGEBYSCORE', p .. 'z', '-inf', '0')
try('ZREM', p .. 'z', 'a')
try('XADD', p .. 'x', 'MAXLEN', '~', '10', '*', 'a', '1')
if ARGV[2] == '1' then
  try('HDEL', p .. 'h', 'a')
  try('RPOP', p .. 'l')
  try('RPUSH', p .. 'l', '2')
  try('LTRIM', p .. 'l', '0', '0')
  try('ZREMRANGEBYSCORE', p .. 'z', '-inf', '0')
  try('SADD', p .. 'm', 'a')
  try('SREM', p .. 'm', 'a')
  try('SMEMBERS', p .. 'm')
end
try('DEL', p .. 's', p .. 'h', p .. 'l', p .. 'z', p .. 'm', p .. 'x')
for i = 3, #ARGV do
  if try('LLEN', ARGV[i]) then
    try('PERSIST', ARGV[i])  -- lists of the queue have no time to live, which this would remove
  end
end
return failed
