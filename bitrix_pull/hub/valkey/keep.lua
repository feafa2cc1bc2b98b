-- Keeps a portal's tokens.
--
-- The same tokens again, right before they are spent: only who has the right to. What they were
-- traded for: whoever has spent them, however late, as long as nobody has kept others meanwhile.
--
-- KEYS tokens
-- ARGV holder or "", version that it began with, "same" or "", milliseconds that its right lasts, the tokens
-- Returns the version of what is kept now, or -1 if they are not taken
local holder, version, same, lasts, content = unpack(ARGV)
local told = redis.call('HMGET', KEYS[1], 'holder', 'until', 'version')
local present = tonumber(told[3] or '') or 0
if holder ~= '' then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    if same == 'same' then
        if told[1] ~= holder or (tonumber(told[2] or '') or 0) <= now or present ~= tonumber(version) then
            return -1
        end
        redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + lasts))
        return present
    elseif present ~= tonumber(version) then
        -- Kept already, if only the answer was lost.
        return redis.call('HGET', KEYS[1], 'content') == content and present or -1
    end
end
redis.call('HSET', KEYS[1], 'content', content)
return redis.call('HINCRBY', KEYS[1], 'version', 1)
