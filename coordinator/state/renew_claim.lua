-- Renew the claim of a run on the database, if the run still holds it.
--
-- KEYS[1]  claim: string, JSON of the holder
-- ARGV[1]  holder: JSON
-- ARGV[2]  milliseconds until the claim expires
-- Returns  1 if it was renewed, 0 if another run holds it or nobody does
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0
