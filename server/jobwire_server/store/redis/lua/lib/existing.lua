-- Jobs that are there already, or since a moment ago, when one is created.
local waiting = {} -- queue name -> how many are QUEUED, those of this call included
local entered, specs = {}, {} -- of jobs of this call: id -> queue and state; id -> spec

local function position(name, state)
    if state ~= 'queued' then
        return 0
    end
    if not waiting[name] then
        waiting[name] = redis.call('ZCARD', index(name, 'queued'))
    end
    return waiting[name]
end

-- Of a job that is there, perhaps since a moment ago; nil = it is not.
local function position_of(id)
    local known = entered[id]
    if known then
        return position(known[1], known[2])
    end
    load({ id })
    return rows[id] and position(rows[id].fields.queue, rows[id].fields.state) or nil
end

-- Whether any of these jobs is there: nearly always none is, and one question is enough.
local function exist(keys)
    for first = 1, #keys, 900 do
        if redis.call('EXISTS', unpack(keys, first, math.min(first + 899, #keys))) > 0 then
            return true
        end
    end
    return false
end

-- What stands under the request keys of new jobs, by key: one question for all of them.
local function known_requests(new_jobs)
    local request_keys, names, known = {}, {}, {}
    for _, new in ipairs(new_jobs) do
        if new[4] then
            request_keys[#request_keys + 1], names[#names + 1] = new[4], TAG .. REQUEST .. new[4]
        end
    end
    for i, found in ipairs(mget(names)) do
        known[request_keys[i]] = found
    end
    return known
end

-- Nothing when there is no such job.
local function digest_of(id, some_exist)
    local spec = specs[id]
    if not spec and some_exist then
        load({ id })
        spec = rows[id] and (redis.call('GET', TAG .. SPEC .. id) or '')
    end
    return spec and digest_in(spec)
end

-- A job that may be of this very call.
local function as_stored(id)
    rows[id] = rows[id] or nil
    load({ id })
    return rows[id]
end
