-- Adding jobs. A new job is [id, number of its shape, size of its spec, request key or nothing]; a shape is what jobs of a
-- call have in common: [was its id given, queue, priority, schedule_time, expire_time, user_id, is it plain (plain.lua), the
-- fields that it says of itself, as the inside of a JSON object]; false = none.
local queued = {} -- queue name -> how many became QUEUED
local made = {} -- queue name -> how many

-- Answers what the caller cannot know: its place in the queue, score, queue_time.
local function add(key, new, shape, spec)
    local id, name, due = new[1], shape[2], shape[4]
    local state, score, queue_time, place_in_queue, begins = 'scheduled', due, nil, 0, '{"state":"scheduled","score":"'
    if due and tonumber(due) > NOW then
        queue(name).changed = true
    else
        begins = shape[7] and PLAIN or '{"state":"queued","score":"'
        place_in_queue = position(name, 'queued') + 1
        waiting[name], queued[name] = place_in_queue, (queued[name] or 0) + 1
        state = 'queued'
        queue_time, score = enter(name, { priority = shape[3] or nil })
    end
    -- Put together by hand: as a table it would take cjson three times as long.
    write_string(key, begins .. score .. (queue_time and '","queue_time":"' .. queue_time or '')
        .. '","create_time":"' .. NOW_TEXT .. '",' .. shape[8] .. '}')
    write_string(TAG .. SPEC .. id, spec)
    made[name] = (made[name] or 0) + 1
    if is_watched() then
        tell_born(id, shape)
    end
    shape[state] = shape[state] or { name, state }
    entered[id] = shape[state]
    local list = list_of(entering, index(name, state))
    list[#list + 1], list[#list + 2] = score, id
    if shape[5] then
        place(TAG .. EXPIRY, id, shape[5])
    end
    if shape[6] then
        place(TAG .. USER .. redis.sha1hex(shape[6]), id, NOW_TEXT)
    end
    return place_in_queue, score, queue_time
end

local function tell_created()
    for name, number in pairs(made) do
        happened(name, 'created', number)
    end
    for name, number in pairs(queued) do
        tell_count('queued', name, number)
    end
end
