-- A worker is gone: what it still had is free.
--
-- KEYS workers leases versions about health orders
-- ARGV session
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
    if string.match(all[i + 1], '^%d+ (.*)$') == ARGV[1] then
        redis.call('HDEL', KEYS[2], all[i])
    end
end
redis.call('ZREM', KEYS[1], ARGV[1])
for i = 3, #KEYS do
    redis.call('HDEL', KEYS[i], ARGV[1])
end
return 1
