#!lua flags=no-writes
-- Reads workers: what they say of themselves, and how many leases they hold.
-- Guard: none.
-- Returns: JSON list of [id, held, ids of some jobs it holds, last_beat, register_time, directive, last_seen, session, host,
--   pid, runtime, version, labels, queues, max_in_flight] (texts; false = unsaid) of those asked for that are known.
-- Keeps: everything.
--!include call names
local ids, jobs, found = ARGS[1], ARGS[2], {}
for _, id in ipairs(ids) do
    local got = redis.call('HMGET', TAG .. WORKER .. id, 'last_beat', 'register_time', 'directive', 'last_seen', 'session',
        'host', 'pid', 'runtime', 'version', 'labels', 'queues', 'max_in_flight')
    if got[1] then
        local held = jobs > 0 and redis.call('ZRANGE', leases_of(id), 0, jobs - 1) or {}
        found[#found + 1] = cjson.encode({ id, redis.call('ZCARD', leases_of(id)), held, unpack(got) })
    end
end
return { NOW_TEXT, '', '', '[' .. table.concat(found, ',') .. ']', '' }
