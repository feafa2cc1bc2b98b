-- How far a portal is, for who has its lease now. From here on, the owners before it are refused.
--
-- KEYS at seen
-- ARGV epoch, key of the resume point
-- Returns {-1} if a later owner was here; else
--   {number of writes so far, resume point or "", its latest advance or "", "MID STAMP" of each later message}
local at, seen = unpack(KEYS)
local epoch, key = tonumber(ARGV[1]), ARGV[2]
if epoch < (tonumber(redis.call('HGET', at, 'epoch') or '') or 0) then
    return {-1}
end
redis.call('HSET', at, 'epoch', ARGV[1])
local answer = {
    tonumber(redis.call('HGET', at, 'writes') or '') or 0,
    redis.call('HGET', at, 'point ' .. key) or '',
    redis.call('HGET', at, 'advance ' .. key) or '',
}
for _, member in ipairs(redis.call('ZRANGE', seen, 0, -1)) do
    answer[#answer + 1] = member
end
return answer
