-- Release the claim of a run on the database, if the run still holds it.
--
-- KEYS[1]  claim: string, JSON of the holder
-- ARGV[1]  holder: JSON
-- Returns  1 if it was released, 0 if another run holds it or nobody does
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
