-- Applies a Move as domain.move.Move says.
local function end_attempt(row, outcome)
    set(row, 'outcome', outcome)
    set(row, 'end_time', NOW_TEXT)
    if not row.fields.start_time then
        set(row, 'start_time', row.fields.claim_time or false)
    end
end

local function stand(row, was_ended, to, lease_ends)
    local fields = row.fields
    if to == 'queued' then
        local queue_time, score = enter(fields.queue, fields)
        set(row, 'queue_time', queue_time)
        set(row, 'score', score)
    elseif to == 'scheduled' then
        set(row, 'score', as_score(fields.schedule_time))
    elseif to == 'in_progress' then
        local score = math.min(lease_ends, tonumber(fields.limit_time or lease_ends))
        set(row, 'lease_expire_time', score < lease_ends and text(lease_ends))
        set(row, 'score', text(score))
    else
        if not was_ended then
            set(row, 'finish_time', NOW_TEXT)
        end
        local retention = fields.retention or queue(fields.queue).retention or DEFAULT_RETENTION[to]
        set(row, 'score', text(tonumber(fields.finish_time) + tonumber(retention)))
    end
end

local function with_submission(row, submission)
    local digest = digest_in(row.spec or redis.call('GET', TAG .. SPEC .. row.id) or '')
    return string.char(#digest) .. digest .. submission
end

-- `shape` is what many Moves have in common: verb, to, outcome, changes.
local function apply(row, shape, operation, submission, result)
    local fields, to = row.fields, shape.to
    local from, old_expiry = fields.state, expiry_of(fields.state, fields)
    local old = { id = row.id, queue = fields.queue, worker_id = fields.worker_id, fence = fields.fence,
        claim_time = fields.claim_time, acknowledged = fields.acknowledged, cancel_reason = row.detail.cancel_reason }
    local lease_ends = from == 'in_progress' and lease_end(fields)
    for field, value in pairs(shape.changes) do
        set(row, field, value)
    end
    if submission then
        row.spec, row.new_spec = with_submission(row, submission), true
    end
    if shape.writes_result then
        row.result, row.new_result = result or false, true
        set(row, 'result', false) -- a small one stood in the record
    end
    row.has_changed = true
    set(row, 'state', to)
    set(row, 'update_time', NOW_TEXT)
    count_up(row, 'version')
    if shape.verb ~= 'cancel' or to ~= 'in_progress' then
        count_up(row, 'revision') -- the mere request to cancel a running job is no edit
    end
    set(row, 'last_operation', operation ~= '' and operation)
    if shape.outcome then
        end_attempt(row, shape.outcome)
    end
    stand(row, ENDED[from], to, lease_ends)
    tally_state(fields.queue, from, to)
    if shape.cost then
        happened(fields.queue, shape.cost, 1)
    end
    if to == 'completed' and from == 'in_progress' then
        happened(fields.queue, 'run_time', run_time(old))
    end
    if from == 'in_progress' then
        if to ~= 'in_progress' then
            set(row, 'lease_expire_time', false)
            set(row, 'acknowledged', false)
        end
        tell_holder(old, shape)
    end
    if to == 'queued' and from ~= 'queued' then
        tell_count('queued', fields.queue, 1)
    end
    if ENDED[to] and not ENDED[from] and tonumber(fields.score) <= tonumber(fields.finish_time) then
        remove(row.id, fields, from, old_expiry, row)
    else
        placed(row, from, old_expiry)
    end
end
