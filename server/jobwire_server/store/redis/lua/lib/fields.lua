-- What a job's fields say, and how a job is answered.

-- When the lease itself ends; stored only where a limit ends it sooner.
local function lease_end(fields)
    return tonumber(fields.lease_expire_time or fields.score)
end

local function is_expired(fields)
    return fields.expire_time and tonumber(fields.expire_time) <= NOW and not fields.start_time
end

-- The parts of a job that may grow, as one JSON object of texts; false = there are none.
local function detail_of(row)
    if row.rewrites_detail then
        local parts = {}
        for part in pairs(DETAILS) do
            parts[part] = row.fields[part]
        end
        return next(parts) and cjson.encode(parts) or false
    end
    return row.detail
end

-- A job as it is now. Its bytes go to the answer's blob: the stored fields and those written since (the later one
-- holds, an empty one is none), split by NUL, which no text has; then detail, submission and result. Here stand their
-- sizes, in that order.
local function encoded(row)
    if not row then
        return 'false'
    end
    local written = table.concat(row.stored, '\0')
    if #row.put > 0 then
        written = (written ~= '' and written .. '\0' or '') .. table.concat(row.put, '\0')
    end
    if row.drops then
        for _, field in ipairs(dropped(row)) do
            written = written .. '\0' .. field .. '\0'
        end
    end
    local detail, at = detail_of(row), #blobs
    blobs[at + 1], blobs[at + 2], blobs[at + 3], blobs[at + 4] = written, detail or '', row.spec, row.result or ''
    return '["' .. row.id .. '",' .. text(#written) .. ',' .. text(detail and #detail or 0) .. ',' .. text(#row.spec)
        .. ',' .. text(row.result and #row.result or -1) .. ']'
end

local function encoded_list(list)
    return '[' .. table.concat(list, ',') .. ']'
end
