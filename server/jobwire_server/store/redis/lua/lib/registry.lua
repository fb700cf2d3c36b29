-- A queue as store.base.QueueRecord has it.
local FIELDS = { 'paused', 'ageing', 'retention', 'max_in_flight', 'create_time', 'update_time', 'revision' }

-- The queue_time of the first that a claim would not look past; false = nobody waits.
local function head_queue_time(name)
    for _, id in ipairs(redis.call('ZRANGE', index(name, 'queued'), 0, LOOK_PAST)) do
        local got = redis.call('HMGET', TAG .. JOB .. id, 'queue_time', 'expire_time', 'start_time')
        local expires = not got[3] and tonumber(got[2] or nil)
        if got[1] and not (expires and expires <= NOW) then
            return got[1]
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
