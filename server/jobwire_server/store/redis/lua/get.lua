#!lua flags=no-writes
-- Reads jobs.
-- Guard: none.
-- Returns: JSON list of jobs, in the order of the ids; false where there is none.
-- Keeps: everything.
--!include call rows changes fields
load(ARGS)
local found = {}
for i, id in ipairs(ARGS) do
    found[i] = encoded(rows[id])
end
return { NOW_TEXT, '', '', encoded_list(found), table.concat(blobs) }
