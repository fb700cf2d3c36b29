#!lua flags=no-writes
-- Reads the records of jobs as they are stored, for a judgement on whether they can be read.
-- Guard: none.
-- Returns: JSON list of [id, digest, size of the record, size of the detail] of those that are there; the bytes of all
--   these follow one another.
-- Keeps: everything.
--!include call damaged record
local found, bytes = {}, {}
for _, id in ipairs(ARGS) do
    local record, detail, digest = record_of(id)
    if record then
        bytes[#bytes + 1], bytes[#bytes + 2] = record, detail
        found[#found + 1] = cjson.encode({ id, digest, #record, #detail })
    end
end
return { NOW_TEXT, '', '', '[' .. table.concat(found, ',') .. ']', table.concat(bytes) }
