#!lua flags=allow-oom
-- Reads leases past their deadline, then waiting jobs past their expire_time.
-- Guard: none; whoever decides on them carries its own.
-- Returns: JSON list of jobs.
-- Keeps: notes that somebody sweeps; leases that wait out an outage do not hide those that need not.
--!include call rows changes fields names indices watched places outage order sweeping
local limit, names = ARGS[1], ARGS[2]
local LOOKED_AT_MOST = 20 * limit -- leases that wait out an outage are many, and a script holds up everybody
local found = {}

local function due_leases(name)
    local at, looked = 0, 0
    local due = 0
    while due < limit and looked < LOOKED_AT_MOST do
        local ids = redis.call('ZRANGEBYSCORE', index(name, 'in_progress'), '-inf', NOW_TEXT, 'LIMIT', at, limit)
        load(ids)
        for _, id in ipairs(ids) do
            local row = rows[id]
            if row and row.fields.state ~= 'in_progress' then
                check_state(row.fields.state)
            elseif row and is_overdue(row.fields) and due < limit then
                found[#found + 1] = row
                due = due + 1
            end
        end
        at, looked = at + #ids, looked + #ids
        if #ids < limit then
            return
        end
    end
end

local function expired(named, room)
    local at, waiting = 0, {}
    while #waiting < room do
        local ids = redis.call('ZRANGEBYSCORE', TAG .. EXPIRY, '-inf', NOW_TEXT, 'LIMIT', at, limit)
        load(ids)
        for _, id in ipairs(ids) do
            local row = rows[id]
            -- An entry that somebody left there must not stop the sweep.
            local expires = row and expiry_of(row.fields.state, row.fields)
            if expires and #waiting < room and (not named or named[row.fields.queue]) then
                waiting[#waiting + 1] = row
            end
        end
        at = at + #ids
        if #ids < limit then
            break
        end
    end
    return waiting
end

note_sweep()
local named, queue_names = chosen(names)
for _, name in ipairs(queue_names) do
    due_leases(name)
end
found = first_of(found, limit, 'score')
for _, row in ipairs(first_of(expired(named, limit - #found), limit, 'expire_time')) do
    found[#found + 1] = row
end
return { NOW_TEXT, '', '', encoded_rows(found), table.concat(blobs) }
