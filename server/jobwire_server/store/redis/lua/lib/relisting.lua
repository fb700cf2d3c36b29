-- Queues and workers that are kept stand in a list; what is in neither place is nowhere. Only while mending.
local listed, forgotten, raised = {}, {}, {} -- { list, name }; the same; { key, field, value }
local COUNTED = { completed = true, failed = true } -- states that are events of a tally

local function list(names, name)
    if redis.call('SISMEMBER', TAG .. names, name) == 0 then
        listed[#listed + 1] = { names, name }
    end
end

-- A tally never shrinks: it has counted what its marks say, and what has ended and is still there.
local function mend_tally(name)
    local key, least = TAG .. QUEUE .. name, { tally_fields() }
    local counted = redis.call('HMGET', key, unpack(least))
    for i, field in ipairs(least) do
        least[i] = COUNTED[field] and text(redis.call('ZCARD', index(name, field))) or '0'
        assert(not counted[i] or string.match(counted[i], '^%-?%d+$'), 'damaged')
    end
    for _, mark in ipairs(redis.call('HVALS', TAG .. MARKS .. name)) do
        local at = -1 -- its step and number come first
        for number in string.gmatch(mark, '%S+') do
            if at > 0 and tonumber(number) > tonumber(least[at]) then
                least[at] = number
            end
            at = at + 1
        end
    end
    for i, field in ipairs({ tally_fields() }) do
        if tonumber(least[i]) > tonumber(counted[i] or '0') then
            assert(tonumber(least[i]) < 2 ^ 53, 'damaged')
            raised[#raised + 1] = { key, field, least[i] }
        end
    end
end

local function has_jobs(name)
    for _, state in ipairs(STATES) do
        if redis.call('EXISTS', index(name, state)) == 1 then
            return true
        end
    end
end

local function mend_queue(name)
    if redis.call('EXISTS', TAG .. QUEUE .. name) == 1 then
        list(QUEUES, name)
        mend_tally(name)
    elseif not has_jobs(name) then
        forgotten[#forgotten + 1] = { QUEUES, name }
        removed[#removed + 1] = TAG .. MARKS .. name
    end
end

local function mend_worker(id)
    if redis.call('EXISTS', TAG .. WORKER .. id) == 1 then
        list(WORKERS, id)
    elseif redis.call('EXISTS', leases_of(id)) == 1 then
        worker(id)
    else
        forgotten[#forgotten + 1] = { WORKERS, id }
    end
end

local function write_lists()
    for _, each in ipairs(listed) do
        redis.call('SADD', TAG .. each[1], each[2])
    end
    for _, each in ipairs(forgotten) do
        redis.call('SREM', TAG .. each[1], each[2])
    end
    for _, each in ipairs(raised) do
        redis.call('HSET', unpack(each))
    end
end
