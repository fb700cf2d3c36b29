#!lua flags=allow-oom
-- Moves SCHEDULED jobs whose time has come to QUEUED, in all queues.
-- Guard: due now, and no other server that has just done it.
-- Returns: JSON number of jobs moved.
-- Keeps: each queue is entered in the order of the due times.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush turns
local limit, server, promoted = ARGS[1], ARGS[2], 0

local function promote(row)
    local fields = row.fields
    local old_expiry = expiry_of('scheduled', fields)
    local queue_time, score = enter(fields.queue, fields)
    row.has_changed = true
    set(row, 'state', 'queued')
    set(row, 'queue_time', queue_time)
    set(row, 'score', score)
    count_up(row, 'version')
    count_up(row, 'revision')
    set(row, 'update_time', NOW_TEXT)
    placed(row, 'scheduled', old_expiry)
    tell_count('queued', fields.queue, 1)
end

if is_done('promote', server) then
    return answer('', '', '0')
end
for _, name in ipairs(redis.call('SMEMBERS', TAG .. QUEUES)) do
    if promoted == limit then
        break
    end
    local key = index(name, 'scheduled')
    local ids = redis.call('ZRANGEBYSCORE', key, '-inf', NOW_TEXT, 'LIMIT', 0, limit - promoted)
    load(ids)
    for _, id in ipairs(ids) do
        if rows[id] and rows[id].fields.state == 'scheduled' then
            promote(rows[id])
            promoted = promoted + 1
        else
            if rows[id] then check_state(rows[id].fields.state) end
            place(key, id, false)
        end
    end
end
local change, told = flush()
note_done('promote', server, promoted == limit)
return answer(change, told, text(promoted))
