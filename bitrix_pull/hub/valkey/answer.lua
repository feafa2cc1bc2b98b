-- Says what became of a request that was taken, unless somebody has said so already.
--
-- KEYS taken answers
-- ARGV entry, the answer, milliseconds that answers are kept, how many
-- Returns 1, or 0 if it is answered already
local taken, answers = unpack(KEYS)
local entry, answer, kept, most = unpack(ARGV)
if redis.call('HDEL', taken, entry) == 0 then
    return 0
end
redis.call('XADD', answers, 'MAXLEN', '~', most, '*', 'answer', answer)
redis.call('PEXPIRE', answers, kept)
return 1
