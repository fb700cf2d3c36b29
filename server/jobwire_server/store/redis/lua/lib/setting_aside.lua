-- Making a dead letter that can be read of a job that cannot.
-- The job leaves the state indices of that queue; answers whether it stood there, and whether as a lease.
local function leave(id, name)
    local stood, was_leased = false, false
    for _, state in ipairs(STATES) do
        if redis.call('ZSCORE', index(name, state), id) then
            place(index(name, state), id, false)
            stood, was_leased = true, was_leased or state == 'in_progress'
        end
    end
    return stood, was_leased
end

-- Its queue where the record does not say, as the indices do: every one is asked, but this is rare.
local function queue_of(id)
    for _, name in ipairs(redis.call('SMEMBERS', TAG .. QUEUES)) do
        local stood, was_leased = leave(id, name)
        if stood then
            return name, was_leased
        end
    end
end

-- The worker that pays for the lease with its credit; nil = none does. Where the record may be wrong, each is asked.
local function holder_of(id, said, may_be_wrong)
    if said and redis.call('ZSCORE', leases_of(said), id) then
        return said
    end
    for _, worker_id in ipairs(may_be_wrong and redis.call('SMEMBERS', TAG .. WORKERS) or {}) do
        if redis.call('ZSCORE', leases_of(worker_id), id) then
            return worker_id
        end
    end
end

-- It was created when its user's index says, where the record does not.
local function place_with_user(row, old_user)
    local fields, key = row.fields, old_user and TAG .. USER .. redis.sha1hex(old_user)
    local known = key and redis.call('ZSCORE', key, row.id)
    set(row, 'create_time', fields.create_time or (known and text(tonumber(known))) or NOW_TEXT)
    if key then
        place(key, row.id, false)
    end
    if fields.user_id then
        place(TAG .. USER .. redis.sha1hex(fields.user_id), row.id, fields.create_time)
    end
end

-- `changes`: what the record has to say instead (mending.py); false = nothing.
local function set_aside(id, fields, detail, changes)
    local row = { id = id, fields = fields, detail = detail, has_changed = true, rewrites = true, rewrites_detail = true }
    local said_queue, old_user, said_holder = fields.queue, fields.user_id, fields.worker_id
    rows[id] = row
    fields.beside = redis.call('EXISTS', TAG .. RESULT .. id) == 1 and 'r' or nil
    for field, value in pairs(changes) do
        set(row, field, value)
    end
    local was_leased = said_queue and select(2, leave(id, said_queue))
    if not fields.queue then
        local name, was_leased_there = queue_of(id)
        was_leased = was_leased or was_leased_there
        set(row, 'queue', name or DEFAULT_QUEUE)
        queue(fields.queue).changed = true
    end
    tally_state(fields.queue, fields.state, 'failed')
    set(row, 'state', 'failed')
    set(row, 'score', text(NOW + tonumber(DEFAULT_RETENTION.failed))) -- its own may be zero, and somebody should see it
    set(row, 'finish_time', NOW_TEXT)
    set(row, 'update_time', NOW_TEXT)
    set(row, 'version', changes.version == false and NOW_TEXT or text((fields.version or 1) + 1)) -- always higher
    set(row, 'revision', changes.revision == false and fields.version or text((fields.revision or 1) + 1))
    placed(row, false, false)
    place(TAG .. EXPIRY, id, false)
    place_with_user(row, old_user)
    local holder = holder_of(id, said_holder, was_leased or changes.worker_id == false)
    if holder then
        tell_holder({ id = id, queue = fields.queue, worker_id = holder, fence = fields.fence or '0' },
            { verb = 'set_aside' })
    end
    return fields.queue
end
