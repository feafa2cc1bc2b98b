-- What a worker has, by the engine's word.
--
-- KEYS leases versions
-- ARGV session
-- Returns {version of its leases, portal, epoch, portal, epoch, ...}
local leases, versions = unpack(KEYS)
local answer = {tonumber(redis.call('HGET', versions, ARGV[1])) or 0}
local all = redis.call('HGETALL', leases)
for i = 1, #all, 2 do
    local epoch, owner = string.match(all[i + 1], '^(%d+) (.*)$')
    if owner == ARGV[1] then
        answer[#answer + 1] = all[i]
        answer[#answer + 1] = epoch
    end
end
return answer
