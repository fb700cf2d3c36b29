-- How jobs are leased: the records of those at the head are read, changed and written one list at a time.
local leased = {}

-- What the jobs of one request have in common, put together once.
local function terms_of(name, request)
    local is_acknowledged = request.delivery_timeout == '0'
    local ends = NOW + tonumber(is_acknowledged and request.lease_duration or request.delivery_timeout)
    local begins, goes_on = plain_lease(request, text(ends), is_acknowledged)
    return {
        is_acknowledged = is_acknowledged,
        ends = ends,
        score = text(ends),
        worker_id = request.worker_id,
        lease_duration = request.lease_duration,
        leases = list_of(entering, leases_of(request.worker_id)),
        queued = list_of(leaving, index(name, 'queued')),
        running = list_of(entering, index(name, 'in_progress')),
        begins = begins,
        goes_on = goes_on,
    }
end

-- Whatever an earlier attempt has left in the record goes. Only a job that came back has any.
local function clear(job)
    local fields, beside = job.fields, job.fields.beside
    fields.outcome, fields.end_time, fields.limit_time = nil, nil, nil
    if beside and has_beside(fields, 'd') then
        load({ job.id })
        local row = rows[job.id]
        row.fields = fields
        set(row, 'progress', false)
        if row.rewrites_detail then
            write_beside(row)
        end
        row.rewrites, row.rewrites_detail = false, false
    end
end

-- Answers when the lease ends.
local function lease_in_table(job, fields, terms, token)
    local ends = terms.ends
    if fields.outcome or fields.end_time or fields.limit_time or fields.beside then
        clear(job)
    end
    if fields.expire_time and not fields.start_time then
        place(TAG .. EXPIRY, job.id, false)
    end
    if terms.is_acknowledged then
        fields.acknowledged, fields.start_time, fields.return_count = '1', fields.start_time or NOW_TEXT, nil
        if fields.execution_timeout then
            local limit_time = NOW + tonumber(fields.execution_timeout)
            ends = math.min(ends, limit_time)
            fields.limit_time = text(limit_time)
        end
    end
    fields.state, fields.score, fields.token, fields.update_time = 'in_progress', text(ends), token, NOW_TEXT
    fields.version, fields.revision = text((fields.version or 1) + 1), text((fields.revision or 1) + 1)
    fields.attempt, fields.fence = text((fields.attempt or 0) + 1), text(math.max((fields.fence or 0) + 1, NOW))
    fields.worker_id, fields.claim_time, fields.lease_duration = terms.worker_id, NOW_TEXT, terms.lease_duration
    job.record = cjson.encode(fields)
    return fields.score
end

local function lease(job, terms, token)
    local score = terms.score
    if job.fields then
        score = lease_in_table(job, job.fields, terms, token)
    else
        job.record = leased_plain(job.record, terms.begins, token, terms.goes_on)
    end
    write_string(job.key, job.record)
    leased[#leased + 1] = job
    local queued, running, leases = terms.queued, terms.running, terms.leases
    queued[#queued + 1] = job.id
    running[#running + 1], running[#running + 2] = score, job.id
    leases[#leases + 1], leases[#leases + 2] = NOW_TEXT, job.id
end
