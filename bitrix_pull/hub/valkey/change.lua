-- Changes a portal in the list of all.
--
-- KEYS records versions
-- ARGV key, "put" or "change" or "remove", record
-- Returns 1, or 0 if there is no such portal to change or remove
local records, versions = unpack(KEYS)
local key, how, record = unpack(ARGV)
if how ~= 'put' and redis.call('HEXISTS', records, key) == 0 then
    return 0
end
-- The version of the list is that of its last change. No portal has the empty key.
local version = redis.call('HINCRBY', versions, '', 1)
if how == 'remove' then
    redis.call('HDEL', records, key)
    redis.call('HDEL', versions, key)
else
    redis.call('HSET', records, key, record)
    redis.call('HSET', versions, key, version)
end
return 1
