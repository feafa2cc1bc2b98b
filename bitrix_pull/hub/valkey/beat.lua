-- A worker says that it is alive, and hears how the cluster is doing.
--
-- All leases of a worker last as long as its session does, so this renews them all, in one
-- write, however many there are. Time is this engine's alone.
--
-- KEYS workers leases versions about health orders
-- ARGV session, milliseconds that it lasts, what to tell of it, its health,
--      "join" or "", a session of this worker's that is over or ""
-- Returns {0} if the session is over; else
--   {1, version of its leases, order or "", then of each that lives: session, what it tells, milliseconds that it lasts}
local workers, leases, versions, about, health, orders = unpack(KEYS)
local session, lasts, told, doing, join, over = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
lasts = tonumber(lasts)

-- Had the clock been set back, the dead would live until it has come there again.
for _, far in ipairs(redis.call('ZRANGEBYSCORE', workers, '(' .. (now + 2 * lasts), '+inf')) do
    redis.call('ZADD', workers, now + lasts, far)
end

local gone = {}
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', now)) do
    gone[dead] = true
end
if over ~= '' then
    gone[over] = true
end
if next(gone) then
    local all = redis.call('HGETALL', leases)
    for i = 1, #all, 2 do
        if gone[string.match(all[i + 1], '^%d+ (.*)$') or ''] then
            redis.call('HDEL', leases, all[i])
        end
    end
    for dead in pairs(gone) do
        redis.call('ZREM', workers, dead)
        redis.call('HDEL', versions, dead)
        redis.call('HDEL', about, dead)
        redis.call('HDEL', health, dead)
        redis.call('HDEL', orders, dead)
    end
end

if join ~= 'join' and not redis.call('ZSCORE', workers, session) then
    return {0}
end
redis.call('ZADD', workers, now + lasts, session)
redis.call('HSET', about, session, told)
if doing ~= '' then
    redis.call('HSET', health, session, doing)
end

local answer = {1, tonumber(redis.call('HGET', versions, session)) or 0, redis.call('HGET', orders, session) or ''}
local alive = redis.call('ZRANGE', workers, 0, -1, 'WITHSCORES')
for i = 1, #alive, 2 do
    answer[#answer + 1] = alive[i]
    answer[#answer + 1] = redis.call('HGET', about, alive[i]) or ''
    answer[#answer + 1] = tonumber(alive[i + 1]) - now
end
return answer
