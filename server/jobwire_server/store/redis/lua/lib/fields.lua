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

-- Going to that state it ends in a way of which somebody asked to be told: domain.webhook.wants_word.
local function wants_word(fields, to)
    local event = fields.webhook_events and EVENTS[to]
    return event and not EVENTS[fields.state] and bit.band(tonumber(fields.webhook_events), event) ~= 0
end

-- The parts of a job that may grow, as one JSON object of texts; empty = there are none.
local function detail_of(row)
    return next(row.detail) and cjson.encode(row.detail) or ''
end

-- A job in an answer: its bytes go to the answer's blob, and here stand their sizes, in that order.
local function encoded_parts(id, record, detail, spec, result)
    local at = #blobs
    blobs[at + 1], blobs[at + 2], blobs[at + 3], blobs[at + 4] = record, detail, spec, result or ''
    return '["' .. id .. '",' .. #record .. ',' .. #detail .. ',' .. #spec .. ',' .. (result and #result or -1) .. ']'
end

-- A job as it is now.
local function encoded(row)
    if not row then
        return 'false'
    end
    if row.spec == nil then
        row.spec = redis.call('GET', TAG .. SPEC .. row.id) or ''
    end
    if row.result == nil then
        row.result = has_beside(row.fields, 'r') and redis.call('GET', TAG .. RESULT .. row.id)
    end
    local record = row.rewrites and cjson.encode(row.fields) or row.record
    return encoded_parts(row.id, record, detail_of(row), row.spec, row.result)
end

-- Where it stands: store.base.Standing, without the id, which whoever asked has; after what that begins with.
local function standing(begins, fields)
    return begins .. '["' .. fields.queue .. '","' .. fields.state .. '",' .. fields.score .. ',' .. (fields.version or 1) .. ','
        .. (fields.revision or 1) .. ',' .. (fields.attempt or 0) .. ',' .. (fields.retry_count or 0) .. ','
        .. fields.create_time .. ',' .. (fields.update_time or fields.create_time) .. ',' .. (fields.queue_time or 'null') .. ','
        .. (fields.finish_time or 'null') .. ']]'
end

-- The list is used up: the engine hashes every byte of each text that is put together, so the brackets go on before.
local function encoded_list(list)
    local last = #list
    if last == 0 then
        return '[]'
    end
    list[1] = '[' .. list[1]
    list[last] = list[last] .. ']'
    return table.concat(list, ',')
end
