-- A queue as store.base.QueueRecord has it.
local FIELDS = { 'paused', 'ageing', 'retention', 'max_in_flight', 'create_time', 'update_time', 'revision' }

-- The queue_time of the first that a claim would not look past; false = nobody waits.
local function head_queue_time(name)
    for _, id in ipairs(redis.call('ZRANGE', index(name, 'queued'), 0, LOOK_PAST)) do
        local record = redis.call('GET', key_of(id))
        local fields = record and fields_in(record)
        if fields and fields.queue_time and not is_expired(fields) then
            return fields.queue_time
        end
    end
    return false
end

-- JSON [name, settings in the order of FIELDS (texts; false = the default), counts in the order of STATES, head].
local function queue_record(name)
    local counts = {}
    for i, state in ipairs(STATES) do
        counts[i] = redis.call('ZCARD', TAG .. INDEX .. name .. ':' .. state)
    end
    return cjson.encode({ name, redis.call('HMGET', TAG .. QUEUE .. name, unpack(FIELDS)), counts,
        head_queue_time(name) })
end
