#!lua flags=no-writes
-- Reads workers: what they say of themselves, and how many leases they hold.
-- Guard: none.
-- Returns: JSON list of [id, held, last_beat, session, host, pid, runtime, version, labels, queues] (texts; false = unsaid)
--   of those asked for that are known.
-- Keeps: everything.
--!include call names
local found = {}
for _, id in ipairs(ARGS) do
    local got = redis.call('HMGET', TAG .. WORKER .. id,
        'last_beat', 'session', 'host', 'pid', 'runtime', 'version', 'labels', 'queues')
    if got[1] then
        found[#found + 1] = cjson.encode({ id, redis.call('ZCARD', leases_of(id)), unpack(got) })
    end
end
return { NOW_TEXT, '', '', '[' .. table.concat(found, ',') .. ']', '' }
