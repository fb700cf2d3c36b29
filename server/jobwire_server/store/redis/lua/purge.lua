#!lua flags=allow-oom
-- Removes ended jobs whose purge time has passed, then forgets queues and workers that nobody uses.
-- Guard: past it, no outage in the last minute, and no other server that has just done it.
-- Returns: JSON number of jobs removed.
-- Keeps: notes that somebody sweeps; of very many queues and workers it looks at some, chosen at random.
--   Request ids are forgotten by the engine's own expiry.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush turns forgetting
local limit, server, purged = ARGS[1], ARGS[2], 0

local function purge(name, state)
    local key = index(name, state)
    local ids = redis.call('ZRANGEBYSCORE', key, '-inf', NOW_TEXT, 'LIMIT', 0, limit - purged)
    for i, record in ipairs(records_of(ids)) do
        local id, fields = ids[i], record and fields_in(record)
        if fields then check_state(fields.state) end
        if not fields or fields.state == state then
            fields = fields or {}
            remove(id, { queue = name, user_id = fields.user_id, type = fields.type, create_time = fields.create_time },
                state, false)
            purged = purged + 1
        else
            place(key, id, false)
        end
    end
end

note_sweep()
if (recovered_at() ~= 0 and NOW < recovered_at() + PURGE_PAUSE) or is_done('purge', server) then
    return answer('', '', '0')
end
for _, name in ipairs(redis.call('SRANDMEMBER', TAG .. QUEUES, PURGED_AT_ONCE)) do
    for state in pairs(ENDED) do
        if purged < limit then
            purge(name, state)
        end
    end
end
local change, told = flush()
forget()
note_done('purge', server, purged == limit)
return answer(change, told, text(purged))
