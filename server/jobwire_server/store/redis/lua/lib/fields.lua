-- What a job's fields say, and how a job is answered.

-- When the lease itself ends; stored only where a limit ends it sooner.
local function lease_end(fields)
    return tonumber(fields.lease_expire_time or fields.score)
end

local KNOWN = {}
for _, state in ipairs(STATES) do
    KNOWN[state] = true
end

-- A job in another state than its index has left it. One in a state that nobody knows is damaged: the script must fail
-- (mending.py) before it forgets where that job was.
local function check_state(state)
    if not KNOWN[state] then
        error('a job without a state')
    end
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

-- A job in an answer: its bytes go to the answer's blob, and here stand their sizes, in that order. `fields`: names and
-- values in turn, split by NUL, which no text has; of two values for a name the later one holds, an empty one is none.
local function encoded_parts(id, fields, detail, spec, result)
    local at = #blobs
    blobs[at + 1], blobs[at + 2], blobs[at + 3], blobs[at + 4] = fields, detail, spec, result or ''
    return '["' .. id .. '",' .. #fields .. ',' .. #detail .. ',' .. #spec .. ',' .. (result and #result or -1) .. ']'
end

-- A job as it is now.
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
    return encoded_parts(row.id, written, detail_of(row) or '', row.spec, row.result)
end

-- Where it stands: domain.store.base.Standing, without the id, which whoever asked has.
local function standing(fields)
    return '["' .. fields.queue .. '","' .. fields.state .. '",' .. fields.score .. ',' .. (fields.version or 1) .. ','
        .. (fields.revision or 1) .. ',' .. (fields.attempt or 0) .. ',' .. (fields.retry_count or 0) .. ','
        .. fields.create_time .. ',' .. (fields.update_time or fields.create_time) .. ',' .. (fields.queue_time or 'null') .. ','
        .. (fields.finish_time or 'null') .. ']'
end

local function encoded_list(list)
    return '[' .. table.concat(list, ',') .. ']'
end
