-- The configuration that a portal's last owner has left.
--
-- KEYS config
-- Returns {content or "", milliseconds until it is forgotten}
return {redis.call('HGET', KEYS[1], 'content') or '', redis.call('PTTL', KEYS[1])}
