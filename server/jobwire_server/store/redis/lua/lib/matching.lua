-- Whether a job passes a filter: JobFilter.matches, asked of its hash alone.
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
        local got = redis.call('HMGET', TAG .. JOB .. id, 'state', 'queue', 'type', 'create_time', 'user_id')
        if not (got[1] or got[2] or got[4]) then
            return false -- it has gone, and its entry was left
        end
        check_state(got[2] and got[1])
        local is_here = got[1] == state and got[2] == queue
        if wanted.user then is_here = got[5] == wanted.user end
        if not is_here then
            return false -- an entry that was left where the job stood before
        end
        local created = tonumber(got[4])
        local passes = (not queues or queues[got[2]]) and (not states or states[got[1]])
            and (not types or types[got[3] or '']) and (not from or created >= from) and (not before or created < before)
        return passes and got[1]
    end
end
