-- How jobs are leased. A job at the head is { id, stored, fields, own }: its fields as they are stored (name, value, …)
-- and by name, and what the lease writes that is its own.
local leased = {}

-- nil: it is not QUEUED.
local function waiting_job(id)
    local fields, stored = fields_of(id)
    if fields then
        check_state(fields.state)
    end
    return fields and fields.state == 'queued' and { id = id, stored = stored, fields = fields } or nil
end

-- What the jobs of one request have in common, put together once.
local function terms_of(request)
    local is_acknowledged = request.delivery_timeout == '0'
    local said = { 'state', 'in_progress', 'update_time', NOW_TEXT, 'worker_id', request.worker_id,
        'claim_time', NOW_TEXT, 'lease_duration', request.lease_duration }
    if is_acknowledged then
        said[11], said[12] = 'acknowledged', '1'
    end
    return {
        is_acknowledged = is_acknowledged,
        ends = NOW + tonumber(is_acknowledged and request.lease_duration or request.delivery_timeout),
        said = said,
        as_text = table.concat(said, '\0'),
        leases = leases_of(request.worker_id),
    }
end

-- Whatever an earlier attempt has left in the row goes. Only a job that came back has any.
local LEFT = { 'outcome', 'end_time', 'limit_time', 'progress' }
local function clear(job)
    load({ job.id })
    for _, field in ipairs(LEFT) do
        set(rows[job.id], field, false)
    end
    job.is_cleared = true
end

local function lease(job, terms, token)
    local fields, ends = job.fields, terms.ends
    if fields.outcome or fields.end_time or fields.limit_time or fields.beside then
        clear(job)
    end
    local own = { 'token', token, 'version', (fields.version or 1) + 1, 'revision', (fields.revision or 1) + 1,
        'attempt', (fields.attempt or 0) + 1, 'fence', text(math.max((fields.fence or 0) + 1, NOW)) }
    if terms.is_acknowledged then
        own[11], own[12] = 'start_time', fields.start_time or NOW_TEXT
        if fields.execution_timeout then
            local limit_time = NOW + tonumber(fields.execution_timeout)
            ends = math.min(ends, limit_time)
            own[13], own[14] = 'limit_time', text(limit_time)
        end
    end
    local at, score = #own, text(ends)
    own[at + 1], own[at + 2] = 'score', score
    job.own, job.terms = own, terms
    leased[#leased + 1] = job
    place(index(fields.queue, 'queued'), job.id, false)
    place(index(fields.queue, 'in_progress'), job.id, score)
    place(terms.leases, job.id, NOW_TEXT)
    if fields.expire_time and not fields.start_time then
        place(TAG .. EXPIRY, job.id, false)
    end
end
