#!lua flags=no-writes
-- Reads queues: their settings, what is in them, and what has happened there.
-- Guard: none.
-- Returns: JSON list of queues, of those asked for that exist.
-- Keeps: everything.
--!include call rows changes fields names registry
local found = {}
local names, lately = ARGS[1], ARGS[2]
for _, name in ipairs(names) do
    if redis.call('SISMEMBER', TAG .. QUEUES, name) == 1 then
        found[#found + 1] = queue_record(name, lately)
    end
end
return { NOW_TEXT, '', '', encoded_list(found), '' }
