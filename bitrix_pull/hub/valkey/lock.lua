-- Takes the right to refresh a portal's tokens, for a while.
--
-- KEYS tokens
-- ARGV epoch of the owner or 0 where there are none, holder, milliseconds that it lasts
-- Returns {1, version of the tokens}, {0} if somebody else has it, {-1} if a later owner was here
local epoch, holder, lasts = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until', 'version')
local present = tonumber(told[1] or '') or 0
if tonumber(epoch) == 0 then
    -- Not of a hub: beside the owner, whoever that is.
    epoch = string.format('%.0f', present)
elseif tonumber(epoch) < present then
    return {-1}
end
local ends = tonumber(told[3] or '') or 0
-- Had the clock been set back, nobody could refresh until it has come there again.
if told[2] and told[2] ~= holder and ends > now and ends <= now + 2 * lasts then
    return {0}
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'holder', holder, 'until', string.format('%.0f', now + lasts))
return {1, tonumber(told[4] or '') or 0}
