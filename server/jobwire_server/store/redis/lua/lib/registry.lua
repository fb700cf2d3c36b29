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

-- The marks of the last so many microseconds, as far as the rings go; false where there is none.
local mark_fields
local function marks_of(name, back)
    if not mark_fields then
        mark_fields = {}
        for step, slots in pairs({ [SHORT_STEP] = SHORT_SLOTS, [LONG_STEP] = LONG_SLOTS }) do
            local last = math.floor(NOW / step)
            for number = math.max(last - math.floor(back / step), last - slots + 1), last do
                mark_fields[#mark_fields + 1] = mark_field(step, number, slots)
            end
        end
    end
    return redis.call('HMGET', TAG .. MARKS .. name, unpack(mark_fields))
end

-- JSON [name, settings in the order of FIELDS (texts; false = the default), counts in the order of STATES, head, tally,
-- marks, or false where nobody asked for them].
local function queue_record(name, back)
    local counts = {}
    for i, state in ipairs(STATES) do
        counts[i] = redis.call('ZCARD', TAG .. INDEX .. name .. ':' .. state)
    end
    return cjson.encode({ name, redis.call('HMGET', TAG .. QUEUE .. name, unpack(FIELDS)), counts,
        head_queue_time(name), redis.call('HMGET', TAG .. QUEUE .. name, tally_fields()), back and marks_of(name, back) or false })
end
