#!lua flags=no-writes
-- Reads the next jobs of a listing that match a filter.
-- Guard: none.
-- Returns: JSON [list of jobs, place behind which nothing was looked at, or false].
-- Keeps: everything. Looks at SCAN jobs at most, and loads those that match only, up to FOUND_BYTES.
--!include call rows changes fields names order listing matching
local wanted, limit = ARGS[1], ARGS[2]
local found, size, state_of = {}, 0, matcher(wanted)

local function visit(id, queue, state)
    if state_of(id, queue, state) then
        load({ id })
        local row = rows[id]
        found[#found + 1] = encoded(row)
        size = size + #row.spec + (row.result and #row.result or 0)
    end
end

local behind = walk(wanted, visit, function()
    return #found >= limit or size >= FOUND_BYTES
end)
return { NOW_TEXT, '', '', '[' .. encoded_list(found) .. ',' .. cjson.encode(behind) .. ']', table.concat(blobs) }
