-- Appends events of several portals to the log, and settles them by that: one step, whatever is killed.
--
-- KEYS the log, then at, seen and taken of each portal
-- ARGV the greatest length of the log or 0, the least age in milliseconds of what may go or 0,
--      then of each portal: epoch, number of writes confirmed so far, number of events,
--      and of each event: mid or "", stamp or what tells the event from others, the event
-- Returns for each portal the number of writes so far, -1 if a later owner was here,
--   -2 if what was confirmed is gone, that it has begun included, or text if something else is under its keys
local log = KEYS[1]

local function kind(stamp)
    return stamp >= 1 and 1 or (stamp <= -1 and -1 or 0)
end

-- The same mid with another stamp is another message (a server that has lost its counter).
local function known(seen, mid, stamp)
    stamp = tonumber(stamp) or 0
    for _, member in ipairs(redis.call('ZRANGEBYLEX', seen, '[' .. mid .. ' ', '(' .. mid .. '!')) do
        local other = tonumber(string.sub(member, #mid + 2)) or 0
        if stamp == other or stamp == 0 or other == 0 or kind(stamp) ~= kind(other) then
            return true
        end
    end
    return false
end

local function write(at, seen, taken, first, count)
    local epoch, present = tonumber(ARGV[first]), tonumber(redis.call('HGET', at, 'epoch') or '') or 0
    if epoch ~= present then
        return epoch < present and -1 or -2
    end
    local writes = tonumber(redis.call('HGET', at, 'writes') or '') or 0
    if writes < tonumber(ARGV[first + 1]) then
        return -2
    end
    for i = first + 3, first + 3 * count, 3 do
        local mid, mark, event = ARGV[i], ARGV[i + 1], ARGV[i + 2]
        if mid ~= '' then
            if not known(seen, mid, mark) then
                redis.call('XADD', log, '*', 'event', event)
                redis.call('ZADD', seen, 0, mid .. ' ' .. mark)
            end
        elseif not redis.call('ZSCORE', taken, mark) then
            local id = redis.call('XADD', log, '*', 'event', event)
            local now = tonumber(string.match(id, '^%d+'))
            redis.call('ZADD', taken, now, mark)
            redis.call('ZREMRANGEBYSCORE', taken, '-inf', string.format('%.0f', now - 86400000))
        end
    end
    return redis.call('HINCRBY', at, 'writes', 1)
end

local answer, first = {}, 3
for i = 2, #KEYS, 3 do
    local count = tonumber(ARGV[first + 2])
    local fine, result = pcall(write, KEYS[i], KEYS[i + 1], KEYS[i + 2], first, count)
    if not fine then
        result = type(result) == 'table' and result.err or tostring(result)
        if not string.find(result, 'WRONGTYPE', 1, true) then
            return redis.error_reply(result)
        end
    end
    answer[#answer + 1] = result
    first = first + 3 + 3 * count
end

local most, age = tonumber(ARGV[1]), tonumber(ARGV[2])
if most > 0 and age == 0 then
    redis.call('XTRIM', log, 'MAXLEN', '~', most)
elseif most > 0 and redis.call('XLEN', log) > most then
    local time = redis.call('TIME')
    redis.call('XTRIM', log, 'MINID', '~', string.format('%.0f', time[1] * 1000 - age))
end
return answer
