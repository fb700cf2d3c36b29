-- Changes of jobs in memory; flush.lua writes them.
local DETAILS = { error = true, history = true, progress = true, cancel_reason = true } -- stand beside the hash

-- Writes a field; false = its default, which is not stored.
local function set(row, field, value)
    local fields = row.fields
    if (fields[field] or false) == value then
        return
    end
    fields[field] = value or nil
    if DETAILS[field] then
        row.rewrites_detail = true
        return
    end
    if value then
        local put = row.put
        put[#put + 1], put[#put + 2] = field, value
    else
        row.drops = row.drops or {}
        row.drops[field] = true
    end
end

local function count_up(row, field)
    set(row, field, text((row.fields[field] or 1) + 1))
end

-- The fields that were stored or put, and have their defaults again.
local function dropped(row)
    local names = {}
    for field in pairs(row.drops or {}) do
        if not row.fields[field] then
            names[#names + 1] = field
        end
    end
    return names
end
