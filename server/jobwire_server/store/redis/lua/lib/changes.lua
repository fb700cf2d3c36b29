-- Changes of jobs in memory; flush.lua writes them.
local DETAILS = { error = true, history = true, progress = true, cancel_reason = true } -- stand beside the record

-- Writes a field; false = its default, which is not stored.
local function set(row, field, value)
    local is_detail = DETAILS[field]
    local fields = is_detail and row.detail or row.fields
    if (fields[field] or false) == value then
        return
    end
    fields[field] = value or nil
    row.rewrites = true
    row.rewrites_detail = row.rewrites_detail or is_detail
end

local function count_up(row, field)
    set(row, field, text((row.fields[field] or 1) + 1))
end
