-- Queues as this call has them: settings, and the order in which jobs enter.
local queues = {}

local function queue(name)
    local found = queues[name]
    if not found then
        local got = redis.call('HMGET', TAG .. QUEUE .. name,
            'last_queue_time', 'ageing', 'paused', 'retention', 'max_in_flight')
        found = {
            is_new = not got[1],
            last = tonumber(got[1] or '0'),
            ageing = tonumber(got[2] or DEFAULT_AGEING),
            paused = got[3] == '1',
            retention = got[4],
            max_in_flight = got[5] and tonumber(got[5]),
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
        queue_time = text(entered.last)
    end
    local levels = (fields.priority or DEFAULT_PRIORITY) - MIN_PRIORITY
    return queue_time, text(tonumber(queue_time) + levels * entered.ageing)
end

local function write_queues()
    for name, each in pairs(queues) do
        if each.changed then
            if each.is_new then
                redis.call('SADD', TAG .. QUEUES, name)
            end
            redis.call('HSET', TAG .. QUEUE .. name, 'last_queue_time', text(each.last))
        end
    end
end
