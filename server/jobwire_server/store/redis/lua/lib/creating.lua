-- Adding jobs. A new job is [id, was its id given, request key, digest, queue, schedule_time, expire_time, user_id,
-- priority, size of its submission, and then what it says of itself: name, value, …]; false = none.
local waiting = {} -- queue name -> how many are QUEUED, those of this call included
local hashes, specs, entered = {}, {}, {} -- entered: id -> queue and state

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
    local name, state = unpack(entered[id] or redis.call('HMGET', TAG .. JOB .. id, 'queue', 'state'))
    return name and position(name, state) or nil
end

-- Whether any of these jobs is there: nearly always none is, and one question is enough.
local function exist(new_jobs)
    local keys = {}
    for i, new in ipairs(new_jobs) do
        keys[i] = TAG .. JOB .. new[1]
    end
    for first = 1, #keys, 900 do
        if redis.call('EXISTS', unpack(keys, first, math.min(first + 899, #keys))) > 0 then
            return true
        end
    end
    return false
end

-- Answers what the caller cannot know, as JSON.
local function add(new, submission)
    local id, name, due, at = new[1], new[5], new[6], #new
    local state, score, queue_time = 'scheduled', due, nil
    if due and tonumber(due) > NOW then
        queue(name).changed = true
    else
        waiting[name] = position(name, 'queued') + 1
        state = 'queued'
        queue_time, score = enter(name, { priority = new[9] or nil })
        new[at + 1], new[at + 2] = 'queue_time', queue_time
        at = at + 2
        tell_count('queued', name, 1)
    end
    new[at + 1], new[at + 2], new[at + 3], new[at + 4] = 'state', state, 'score', score
    new[at + 5], new[at + 6] = 'create_time', NOW_TEXT
    hashes[#hashes + 1], entered[id] = new, { name, state }
    if submission ~= '' then
        specs[#specs + 1], specs[#specs + 2] = TAG .. SPEC .. id, submission
    end
    place(index(name, state), id, score)
    if new[7] then
        place(TAG .. EXPIRY, id, new[7])
    end
    if new[8] then
        place(TAG .. USER .. redis.sha1hex(new[8]), id, NOW_TEXT)
    end
    local place_in_queue = queue_time and waiting[name] or 0
    return '["created",' .. place_in_queue .. ',"' .. state .. '",' .. score .. ',' .. (queue_time or 'null') .. ']'
end

local function write_created()
    for _, new in ipairs(hashes) do
        redis.call('HSET', TAG .. JOB .. new[1], unpack(new, 11))
    end
    call_with('MSET', nil, specs, 2)
end
