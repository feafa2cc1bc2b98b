-- Leaves a portal's configuration for its next owner.
--
-- KEYS at config
-- ARGV epoch, content, milliseconds until it is forgotten
-- Returns 1, or -1 if a later owner was here
local at, config = unpack(KEYS)
local epoch, content, lasts = unpack(ARGV)
for _, key in ipairs(KEYS) do
    if tonumber(epoch) < (tonumber(redis.call('HGET', key, 'epoch') or '') or 0) then
        return -1
    end
end
redis.call('HSET', config, 'epoch', epoch, 'content', content)
redis.call('PEXPIRE', config, lasts)
return 1
