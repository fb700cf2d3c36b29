#!lua flags=no-writes
-- Reads the records of jobs as they are stored, for a judgement on whether they can be read.
-- Guard: none.
-- Returns: JSON list of [id, digest, sizes of the names and values in turn, size of the detail] of those that are there;
--   the bytes of all these follow one another.
-- Keeps: everything.
--!include call record
local found, bytes = {}, {}
for _, id in ipairs(ARGS) do
    local flat, detail, digest = record_of(id)
    if flat then
        local sizes = {}
        for i, each in ipairs(flat) do
            sizes[i] = #each
            bytes[#bytes + 1] = each
        end
        bytes[#bytes + 1] = detail or ''
        found[#found + 1] = cjson.encode({ id, digest, sizes, detail and #detail or 0 })
    end
end
return { NOW_TEXT, '', '', '[' .. table.concat(found, ',') .. ']', table.concat(bytes) }
