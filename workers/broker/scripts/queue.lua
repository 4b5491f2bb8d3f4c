-- Functions that the scripts of the queues share. `workers.redis_script.Script` puts this file before them.
--
-- Keys of the queues; times are microseconds by the clock of Redis:
--   QUEUE                 list of the request ids of level 0; the last one is next
--   QUEUE\6\22LEVEL       the same for the levels 3 and 6, as kombu names them
--   llmi:request:ID       record of a request until it has an outcome: hash
--     queue, level          where it is queued
--     message, reply_to     the request as JSON; the reply stream of its client, or ''
--     posted, deadline, start_by
--     place                 how many were posted to its list before it, plus 1
--     state                 'waiting' or 'held'
--     claims, number        how often it was claimed; a number that names the last claim, and never comes again
--     worker, claimed       of the last claim
--     lost                  claims that ended with the loss of a process or worker: JSON, [{worker, started}, ..]
--   llmi:held:QUEUE       sorted set: ids of held requests -> when their leases expire
--   llmi:queue:QUEUE      hash: posted:LEVEL, popped:LEVEL: how many entries its lists got and lost
--   llmi:wake:QUEUE       list with at most one entry, which wakes one idle worker
--   llmi:outcome:ID       outcome of a request: JSON
--   llmi:cancelled:WORKER list: cancelled requests that the worker holds
--   llmi:replies:CLIENT   stream: ids of requests of the client that have an outcome
local LEVELS = {'0', '3', '6'}
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function whole(number) return string.format('%.0f', number) end

local function record_key(id) return 'llmi:request:' .. id end

local function held_key(queue) return 'llmi:held:' .. queue end

local function list_key(queue, level) return level == '0' and queue or queue .. '\6\22' .. level end

local function wake(queue)
  local key = 'llmi:wake:' .. queue
  if redis.call('LLEN', key) == 0 then
    redis.call('LPUSH', key, '1')
    redis.call('EXPIRE', key, 60)
  end
end

