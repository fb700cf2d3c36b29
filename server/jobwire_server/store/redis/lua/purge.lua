#!lua flags=allow-oom
-- Removes ended jobs whose purge time has passed.
-- Guard: past it, and no outage in the last minute.
-- Returns: JSON number of jobs removed.
-- Keeps: notes that somebody sweeps. Request ids are forgotten by the engine's own expiry.
--!include call rows changes fields names places outage hints queues workers flush
local limit, purged = ARGS[1], 0

local function purge(name, state)
    local key = index(name, state)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', NOW_TEXT, 'LIMIT', 0, limit - purged)) do
        local got = redis.call('HMGET', TAG .. JOB .. id, 'state', 'user_id')
        if not got[1] or got[1] == state then
            remove(id, { queue = name, user_id = got[2] or nil }, state, false)
            purged = purged + 1
        else
            place(key, id, false)
        end
    end
end

note_sweep()
if recovered_at() == 0 or NOW >= recovered_at() + PURGE_PAUSE then
    for _, name in ipairs(redis.call('SMEMBERS', TAG .. QUEUES)) do
        for state in pairs(ENDED) do
            if purged < limit then
                purge(name, state)
            end
        end
    end
end
local change, told = flush()
return answer(change, told, text(purged))
