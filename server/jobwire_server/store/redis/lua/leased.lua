#!lua flags=no-writes
-- Reads the oldest leases.
-- Guard: claimed longer ago than asked.
-- Returns: JSON list of jobs, oldest first.
-- Keeps: everything. An operator's question: it looks at every worker.
--!include call rows changes fields names indices watched places outage order sweeping
local longer_than, limit, names = tonumber(ARGS[1]), ARGS[2], ARGS[3]
local named = chosen(names)
local before, found = '(' .. text(NOW - longer_than), {}
for _, id in ipairs(redis.call('SMEMBERS', TAG .. WORKERS)) do
    -- Its leases are not by queue: where queues are named, all of them have to be seen.
    local ids = redis.call('ZRANGEBYSCORE', TAG .. LEASES .. id, '-inf', before, 'LIMIT', 0, named and -1 or limit)
    load(ids)
    for _, job_id in ipairs(ids) do
        local row = rows[job_id]
        if row and row.fields.state == 'in_progress' and (not named or named[row.fields.queue]) then
            found[#found + 1] = row
        end
    end
    if #found > 2 * limit then
        found = first_of(found, limit, 'claim_time')
    end
end
return { NOW_TEXT, '', '', encoded_rows(first_of(found, limit, 'claim_time')), table.concat(blobs) }
