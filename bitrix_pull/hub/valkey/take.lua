-- The owner of a portal takes a request to publish, for itself alone.
--
-- From here on it may have been published: only an answer tells what became of it.
--
-- KEYS requests, at of the portal, taken, asked
-- ARGV epoch, entry, milliseconds that it is good for, who asked under which name or "",
--      milliseconds that names are remembered, what to remember of it until it is answered
-- Returns 1 if it is to be published (by who has taken it: also when asked again), 0 if it is gone,
--   or was asked before, 2 if it has expired, -1 if a later owner was here, -2 if what was confirmed is gone
local requests, at, taken, asked = unpack(KEYS)
local epoch, entry, lasts, name, remembered, about = unpack(ARGV)
local present = tonumber(redis.call('HGET', at, 'epoch') or '') or 0
if tonumber(epoch) ~= present then
    return tonumber(epoch) < present and -1 or -2
end
if not redis.call('XRANGE', requests, entry, entry)[1] then
    return string.match(redis.call('HGET', taken, entry) or '', '^%d+ (.*)$') == about and 1 or 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now - tonumber(string.match(entry, '^%d+')) >= tonumber(lasts) then
    return 2
end
redis.call('XDEL', requests, entry)
if name ~= '' then
    redis.call('ZREMRANGEBYSCORE', asked, '-inf', string.format('%.0f', now - tonumber(remembered)))
    if redis.call('ZADD', asked, 'NX', now, name) == 0 then
        return 0
    end
end
redis.call('HSET', taken, entry, string.format('%.0f ', now) .. about)
return 1
