-- A worker gives a portal up, and the next owner is woken.
--
-- KEYS leases versions wake
-- ARGV session, portal, epoch, milliseconds that the waking is good for, or 0 to wake nobody
-- Returns the version of the worker's leases
local leases, versions, wake = unpack(KEYS)
local session, portal, epoch, lasts = unpack(ARGV)
if redis.call('HGET', leases, portal) == epoch .. ' ' .. session then
    redis.call('HDEL', leases, portal)
    redis.call('HINCRBY', versions, session, 1)
    if tonumber(lasts) > 0 then
        redis.call('RPUSH', wake, portal)
        redis.call('PEXPIRE', wake, lasts)
    end
end
return tonumber(redis.call('HGET', versions, session)) or 0
