-- The end of a lease by completion.
local freed = {} -- worker -> how many of its leases ended
local run_times = {} -- queue -> for how long its jobs ran, all together
local completed_jobs = {} -- queue -> how many

-- The last error goes, the history stays.
local function forget_error(id)
    local key = TAG .. DETAIL .. id
    local parts = cjson.decode(redis.call('GET', key) or '{}')
    parts.error = nil
    if next(parts) then
        write_string(key, cjson.encode(parts))
        return 'd'
    end
    gone[#gone + 1] = key
    return ''
end

-- The whole job, for those who watch one that goes at its end.
local function as_completed(id, fields, large)
    local detail = has_beside(fields, 'd') and cjson.decode(redis.call('GET', TAG .. DETAIL .. id) or '{}') or {}
    detail.error = nil
    return { id = id, fields = fields, detail = detail, result = large }
end

-- `result` stands in the record, `large` beside it; false = there is none.
local function complete(id, key, fields, operation, result, large)
    local name, worker_id, beside = fields.queue, fields.worker_id, fields.beside
    local retention = tonumber(fields.retention or queue(name).retention or DEFAULT_RETENTION.completed)
    local score = text(NOW + retention)
    local leases, running = list_of(leaving, leases_of(worker_id)), list_of(leaving, index(name, 'in_progress'))
    leases[#leases + 1] = id
    freed[worker_id] = (freed[worker_id] or 0) + 1
    completed_jobs[name] = (completed_jobs[name] or 0) + 1
    run_times[name] = (run_times[name] or 0) + run_time(fields)
    slot_freed(name)
    fields.state, fields.score, fields.update_time, fields.finish_time = 'completed', score, NOW_TEXT, NOW_TEXT
    fields.version, fields.revision = text((fields.version or 1) + 1), text((fields.revision or 1) + 1)
    fields.last_operation, fields.outcome, fields.end_time = operation ~= '' and operation or nil, 'completed', NOW_TEXT
    fields.start_time = fields.start_time or fields.claim_time
    fields.acknowledged, fields.lease_expire_time, fields.release_count, fields.return_count = nil, nil, nil, nil
    fields.result = result or nil
    if retention == 0 then
        remove(id, fields, 'in_progress', false, is_watched() and as_completed(id, fields, large))
        return
    end
    if large or beside then
        beside = beside and has_beside(fields, 'd') and forget_error(id) or ''
        if large then
            write_string(TAG .. RESULT .. id, large)
            beside = beside .. 'r'
        elseif has_beside(fields, 'r') then
            gone[#gone + 1] = TAG .. RESULT .. id
        end
        fields.beside = beside ~= '' and beside or nil
    end
    write_string(key, cjson.encode(fields))
    running[#running + 1] = id
    local completed = list_of(entering, index(name, 'completed'))
    completed[#completed + 1], completed[#completed + 2] = score, id
end

local function tell_completed()
    for worker_id, number in pairs(freed) do
        tell_count('freed', worker_id, number)
        acknowledged(worker_id)
    end
    for name, number in pairs(completed_jobs) do
        happened(name, 'completed', number)
        happened(name, 'run_time', run_times[name])
    end
end
