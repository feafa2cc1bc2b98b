-- A worker takes the first portal of several that nobody has.
--
-- Epochs stay for good, and follow this engine's clock too: one that has lost its last second,
-- or all it held, hands out no epoch a second time.
--
-- KEYS workers leases versions epochs
-- ARGV session, portal, portal, ...
-- Returns {0} if the session is over, {1} if each has an owner, or {1, portal, epoch, version of its leases}
local workers, leases, versions, epochs = unpack(KEYS)
local session = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function lives(worker)
    local ends = tonumber(redis.call('ZSCORE', workers, worker) or '')
    return ends ~= nil and ends > now
end

if not lives(session) then
    return {0}
end
for i = 2, #ARGV do
    local portal = ARGV[i]
    local owner = string.match(redis.call('HGET', leases, portal) or '', '^%d+ (.*)$')
    if not owner or not lives(owner) then
        local epoch = math.max((tonumber(redis.call('HGET', epochs, portal) or '') or 0) + 1, now)
        epoch = string.format('%.0f', epoch)
        redis.call('HSET', epochs, portal, epoch)
        redis.call('HSET', leases, portal, epoch .. ' ' .. session)
        return {1, portal, epoch, redis.call('HINCRBY', versions, session, 1)}
    end
end
return {1}
