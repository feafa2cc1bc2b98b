-- Writes down how far a portal is.
--
-- KEYS at seen
-- ARGV epoch, number of writes confirmed so far, key of the resume point,
--      a whole resume point or "", an advance or "", the mid up to which all is settled,
--      "log" if messages are settled by a log too, of which a whole point may not know yet,
--      then "MID STAMP" of messages after the mid that are settled
-- Returns the number of writes so far, -1 if a later owner was here,
--   or -2 if what was confirmed is gone: the engine has gone back
local at, seen = unpack(KEYS)
local epoch, confirmed, key, whole, advance, mid, by = unpack(ARGV)
local present = tonumber(redis.call('HGET', at, 'epoch') or '') or 0
if tonumber(epoch) ~= present then
    return tonumber(epoch) < present and -1 or -2
end
if (tonumber(redis.call('HGET', at, 'writes') or '') or 0) < tonumber(confirmed) then
    return -2
end
local writes = redis.call('HINCRBY', at, 'writes', 1)
if whole ~= '' then
    -- Mids of another server, or of one that has lost its counter, do not compare with those before.
    if by ~= 'log' or mid < (redis.call('HGET', at, 'mid') or '') then
        redis.call('DEL', seen)
    end
    redis.call('HSET', at, 'point ' .. key, whole)
    redis.call('HDEL', at, 'advance ' .. key)
else
    redis.call('HSET', at, 'advance ' .. key, advance)
end
redis.call('HSET', at, 'mid', mid)
redis.call('ZREMRANGEBYLEX', seen, '-', '(' .. mid .. '!')
for i = 8, #ARGV do
    redis.call('ZADD', seen, 0, ARGV[i])
end
return writes
