#!lua flags=allow-oom
-- Goes on telling changes to those who watch, and says on their channel how far they have come.
-- Guard: none.
-- Returns: JSON null; `change` is the number of the last change.
-- Keeps: whoever has heard the mark that this call leaves has heard all that was told before.
--!include call
redis.call('SET', TAG .. WATCHED, '1', 'PX', WATCHED_FOR)
local change = redis.call('GET', TAG .. CHANGE) or '0'
redis.call('PUBLISH', TAG .. CHANGES, change .. '\n' .. cjson.encode(ARGS) .. '\n')
return { NOW_TEXT, change, '', 'null', '' }
