-- How a job is leased, and what a call that is sent again had leased.
local function lease(row, request, token)
    local fields, is_acknowledged = row.fields, request.delivery_timeout == '0'
    local from_expiry = expiry_of('queued', fields)
    local limit_time, ends = false, NOW + tonumber(request.delivery_timeout)
    if is_acknowledged then
        ends = NOW + tonumber(request.lease_duration)
        if fields.execution_timeout then
            limit_time = NOW + tonumber(fields.execution_timeout)
            ends = math.min(ends, limit_time)
        end
        set(row, 'acknowledged', '1')
        set(row, 'return_count', false)
        set(row, 'start_time', fields.start_time or NOW_TEXT)
    end
    row.has_changed = true
    set(row, 'state', 'in_progress')
    set(row, 'score', text(ends))
    count_up(row, 'version')
    count_up(row, 'revision')
    set(row, 'update_time', NOW_TEXT)
    set(row, 'attempt', text((fields.attempt or 0) + 1))
    set(row, 'token', token)
    set(row, 'fence', text(math.max((fields.fence or 0) + 1, NOW)))
    set(row, 'worker_id', request.worker_id)
    set(row, 'claim_time', NOW_TEXT)
    set(row, 'lease_duration', request.lease_duration)
    set(row, 'limit_time', limit_time and text(limit_time))
    set(row, 'outcome', false)
    set(row, 'end_time', false)
    set(row, 'progress', false)
    placed(row, 'queued', from_expiry)
    place(leases_of(request.worker_id), row.id, NOW_TEXT)
end

-- What these tokens took when the call was sent before.
local function taken_before(done, requests, grants)
    for i, request in ipairs(requests) do
        local jobs, is_own = {}, {}
        for _, token in ipairs(request.tokens) do
            is_own[token] = true
        end
        load(done[i])
        for _, id in ipairs(done[i]) do
            local row = rows[id]
            if row and row.fields.state == 'in_progress' and is_own[row.fields.token] then
                jobs[#jobs + 1] = id
            end
        end
        grants[i] = { outcome = #jobs > 0 and 'ok' or may_claim(request), limit = 0, jobs = jobs }
    end
end
