-- Read the outcomes of requests, and find those that Redis has lost.
--
-- KEYS     none: the keys are made from the arguments
-- ARGV     request ids
-- Returns  per id: its outcome; '' while it is queued or held; '?' if Redis has neither
local answers = {}
for i, id in ipairs(ARGV) do
  answers[i] = redis.call('GET', 'llmi:outcome:' .. id)
    or (redis.call('EXISTS', record_key(id)) == 1 and '' or '?')
end
return answers
