#!lua flags=no-writes
-- Reads queues: their settings, and what is in them.
-- Guard: none.
-- Returns: JSON list of queues, of those asked for that exist.
-- Keeps: everything.
--!include call rows changes fields names registry
local found = {}
for _, name in ipairs(ARGS) do
    if redis.call('SISMEMBER', TAG .. QUEUES, name) == 1 then
        found[#found + 1] = queue_record(name)
    end
end
return { NOW_TEXT, '', '', encoded_list(found), '' }
