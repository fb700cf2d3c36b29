-- Queues and workers that nobody has used for long: a few, chosen at random, at each look.
local function forget_queue(name)
    local got = redis.call('HMGET', TAG .. QUEUE .. name, 'revision', 'last_queue_time', 'create_time')
    local last_used = math.max(tonumber(got[2] or '0') or NOW, tonumber(got[3] or '0') or NOW)
    if (got[1] or '0') ~= '0' or last_used > NOW - FORGOTTEN_AFTER then
        return
    end
    for _, state in ipairs(STATES) do
        if redis.call('EXISTS', TAG .. INDEX .. name .. ':' .. state) == 1 then
            return
        end
    end
    redis.call('SREM', TAG .. QUEUES, name)
    redis.call('UNLINK', TAG .. QUEUE .. name, TAG .. MARKS .. name)
end

local function forget_worker(id)
    local got = redis.call('HMGET', TAG .. WORKER .. id, 'last_beat', 'last_seen')
    local heard = math.max(tonumber(got[1] or '0') or NOW, tonumber(got[2] or '0') or NOW)
    if heard <= NOW - WORKER_FORGOTTEN_AFTER and redis.call('EXISTS', leases_of(id)) == 0 then
        redis.call('SREM', TAG .. WORKERS, id)
        redis.call('UNLINK', TAG .. WORKER .. id)
    end
end

-- After all else is written.
local function forget()
    for _, name in ipairs(redis.call('SRANDMEMBER', TAG .. QUEUES, FORGOTTEN_AT_ONCE)) do
        forget_queue(name)
    end
    for _, id in ipairs(redis.call('SRANDMEMBER', TAG .. WORKERS, FORGOTTEN_AT_ONCE)) do
        forget_worker(id)
    end
end
