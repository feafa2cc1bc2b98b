-- Whether all that was confirmed is still there.
--
-- KEYS at of each portal
-- ARGV epoch and number of writes confirmed, of each
-- Returns for each 1, -1 if a later owner was here, or -2 if something confirmed is gone
local answer = {}
for i, at in ipairs(KEYS) do
    local told = redis.call('HMGET', at, 'epoch', 'writes')
    local result = 1
    local epoch, present = tonumber(ARGV[2 * i - 1]), tonumber(told[1] or '') or 0
    if epoch ~= present then
        result = epoch < present and -1 or -2
    elseif (tonumber(told[2] or '') or 0) < tonumber(ARGV[2 * i]) then
        result = -2
    end
    answer[i] = result
end
return answer
