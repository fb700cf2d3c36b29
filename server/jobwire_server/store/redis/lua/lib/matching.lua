-- Whether a job passes a filter: JobFilter.matches, asked of its record alone.
local function set_of(list)
    if not list[1] then
        return nil
    end
    local members = {}
    for _, each in ipairs(list) do
        members[each] = true
    end
    return members
end

-- Answers a function of (id, queue, state), the latter two as its index says; it answers the job's state, or false.
local function matcher(wanted)
    local queues, states, types = set_of(wanted.queues), set_of(wanted.states), set_of(wanted.types)
    local from, before = tonumber(wanted.created_from or nil), tonumber(wanted.created_before or nil)
    return function(id, queue, state)
        local record = redis.call('GET', key_of(id))
        if not record then
            return false -- it has gone, and its entry was left
        end
        local fields = fields_in(record)
        check_state(fields.queue and fields.state)
        local is_here = fields.state == state and fields.queue == queue
        if wanted.user then is_here = fields.user_id == wanted.user end
        if not is_here then
            return false -- an entry that was left where the job stood before
        end
        local created = tonumber(fields.create_time)
        local passes = (not queues or queues[fields.queue]) and (not states or states[fields.state])
            and (not types or types[fields.type or '']) and (not from or created >= from) and (not before or created < before)
        return passes and fields.state
    end
end
