#!lua flags=no-writes
-- Says what keys are.
-- Guard: none.
-- Returns: JSON list of [type, milliseconds left], in the order of the keys; 'none' where there is nothing any more.
-- Keeps: everything.
--!include call
local found = {}
for i, size in ipairs(ARGS) do
    local key = take(size)
    found[i] = { redis.call('TYPE', key).ok, redis.call('PTTL', key) }
end
return { NOW_TEXT, '', '', cjson.encode(found), '' }
