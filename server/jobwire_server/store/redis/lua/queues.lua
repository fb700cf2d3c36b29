#!lua flags=no-writes
-- Reads queues: their settings, what is in them, and what has happened there.
-- Guard: none.
-- Returns: JSON list of queues, of those asked for that exist.
-- Keeps: everything.
--!include call rows changes fields names registry
local found = {}
local names, back = ARGS[1], ARGS[2] -- microseconds for which marks are wanted; false = none are
for _, name in ipairs(names) do
    if redis.call('SISMEMBER', TAG .. QUEUES, name) == 1 then
        found[#found + 1] = queue_record(name, back)
    end
end
return { NOW_TEXT, '', '', encoded_list(found), '' }
