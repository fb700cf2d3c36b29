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

-- After the flush, which has looked whether the indices can be written.
local function write_leased()
    for _, job in ipairs(leased) do
        local key, own, said = TAG .. JOB .. job.id, job.own, job.terms.said
        job.as_text = table.concat(own, '\0') .. '\0' .. job.terms.as_text
        local at = #own
        for i = 1, #said do
            own[at + i] = said[i]
        end
        redis.call('HSET', key, unpack(own))
        if job.terms.is_acknowledged and job.fields.return_count then
            redis.call('HDEL', key, 'return_count')
            job.as_text = job.as_text .. '\0return_count\0'
        end
    end
end

-- The jobs of this call as `encoded` has them; what stands beside the hashes is read in one go.
local function encode_leased()
    local keys = {}
    for i, job in ipairs(leased) do
        keys[i] = TAG .. SPEC .. job.id
    end
    local specs = mget(keys)
    for i, job in ipairs(leased) do
        local beside, detail, result = job.fields.beside, '', false
        if job.is_cleared then
            job.fields, job.stored = fields_of(job.id)
            beside = job.fields.beside
        end
        if beside then
            detail = redis.call('GET', TAG .. DETAIL .. job.id) or ''
            result = string.find(beside, 'r', 1, true) and redis.call('GET', TAG .. RESULT .. job.id)
        end
        local fields = table.concat(job.stored, '\0') .. '\0' .. job.as_text
        job.encoded = encoded_parts(job.id, fields, detail, specs[i] or '', result)
    end
end
