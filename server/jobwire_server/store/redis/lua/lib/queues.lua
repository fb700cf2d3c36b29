-- Queues as this call has them: settings, the order in which jobs enter, the room below a ceiling, what happened there.
local queues = {}
local freed_slots = {} -- queue with a ceiling -> how many of its jobs left IN_PROGRESS for good

local function queue(name)
    local found = queues[name]
    if not found then
        local got = redis.call('HMGET', TAG .. QUEUE .. name,
            'last_queue_time', 'ageing', 'paused', 'retention', 'max_in_flight', 'tallied_at')
        found = {
            is_new = not got[1],
            last = tonumber(got[1] or '0'),
            ageing = tonumber(got[2] or DEFAULT_AGEING),
            paused = got[3] == '1',
            retention = got[4],
            max_in_flight = got[5] and tonumber(got[5]),
            tallied_at = tonumber(got[6]) or 0,
            events = {}, -- what is to be added to its tally, by field
        }
        queues[name] = found
    end
    return found
end

-- A job enters its queue: it gets a place after all others, or keeps the queue_time that it has; its rank is the score.
local function enter(name, fields)
    local entered = queue(name)
    local queue_time = fields.queue_time
    if not queue_time then
        entered.last = math.max(NOW, entered.last + 1)
        entered.changed = true
        queue_time = text_once(entered.last)
    end
    local levels = (fields.priority or DEFAULT_PRIORITY) - MIN_PRIORITY
    return queue_time, text_once(tonumber(queue_time) + levels * entered.ageing)
end

local function write_queues()
    for name, each in pairs(queues) do
        if each.changed then
            if each.is_new then
                redis.call('SADD', TAG .. QUEUES, name)
                redis.call('HSET', TAG .. QUEUE .. name, 'create_time', NOW_TEXT)
            end
            redis.call('HSET', TAG .. QUEUE .. name, 'last_queue_time', text(each.last))
        end
    end
end

-- How many more of its jobs may be claimed, as the indices are.
local function claimable(name)
    local settings = queue(name)
    if settings.paused then
        return 0
    end
    local waiting = redis.call('ZCARD', index(name, 'queued'))
    if not settings.max_in_flight then
        return waiting
    end
    return math.max(0, math.min(waiting, settings.max_in_flight - redis.call('ZCARD', index(name, 'in_progress'))))
end

-- Below a ceiling the end of a lease makes room for any worker, not only for the one that had it.
local function slot_freed(name)
    if queue(name).max_in_flight then
        freed_slots[name] = (freed_slots[name] or 0) + 1
    end
end

-- When the indices are written.
local function tell_freed_slots()
    for name, number in pairs(freed_slots) do
        local more = math.min(number, claimable(name))
        if more > 0 then
            tell_count('queued', name, more)
        end
    end
end
