-- Answers an entry that will not be published: it is no request, or has expired. Any worker may.
--
-- KEYS requests answers
-- ARGV entry, the answer, milliseconds that answers are kept, how many, milliseconds that it is good for
-- Returns 1, or 0 if it is gone, or still good
local requests, answers = unpack(KEYS)
local entry, answer, kept, most, lasts = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now - tonumber(string.match(entry, '^%d+')) < tonumber(lasts) or redis.call('XDEL', requests, entry) == 0 then
    return 0
end
redis.call('XADD', answers, 'MAXLEN', '~', most, '*', 'answer', answer)
redis.call('PEXPIRE', answers, kept)
return 1
