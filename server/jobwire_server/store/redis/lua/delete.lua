#!lua flags=allow-oom
-- Removes each job, with all that stands beside it.
-- Guard: the version, and the create_time of the life in which it was read.
-- Returns: JSON list of outcomes.
-- Keeps: a lease that it ends frees its credit, and its worker is told; sent again, it answers as it did.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush holder
local done, outcomes, has_removed = done_before(), {}, false

local function delete(id, version, create_time)
    load({ id })
    local row = rows[id]
    if not row then
        return 'gone'
    end
    local fields = row.fields
    if (fields.version or '1') ~= version or create_time and fields.create_time ~= create_time then
        return 'stale'
    end
    check_state(fields.state)
    remove(id, fields, fields.state, expiry_of(fields.state, fields))
    if fields.state == 'in_progress' then
        tell_holder({ id = id, queue = fields.queue, worker_id = fields.worker_id,
            fence = text(tonumber(fields.fence)) }, { verb = 'delete' })
    end
    has_removed = true
    return 'ok'
end

for i, each in ipairs(ARGS) do
    outcomes[i] = done and done[i] or delete(each[1], each[2], each[3])
end
local change, told = flush()
remember(outcomes, has_removed)
return answer(change, told, cjson.encode(outcomes))
