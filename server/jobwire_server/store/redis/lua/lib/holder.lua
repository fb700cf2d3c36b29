-- What the end of a lease, or a cancel, means to the worker that has the job, and to those that wait for its queue.
local BY_WORKER = { complete = true, fail = true, release = true }
local RETURNING = { reap = true, recover = true, hand_back = true }
local TAKEN_AWAY = { reap = true, recover = true, hand_back = true, cancel = true, delete = true, set_aside = true }

-- What becomes of the worker that had the job: its credit, its account, and what it is told.
local function tell_holder(old, shape)
    if shape.to == 'in_progress' then
        if shape.verb == 'cancel' then
            tell_worker('cancels', old, shape.changes.cancel_reason or old.cancel_reason or '')
        end
        return
    end
    place(leases_of(old.worker_id), old.id, false)
    tell_count('freed', old.worker_id, 1)
    if shape.to ~= 'queued' then
        slot_freed(old.queue)
    end
    if BY_WORKER[shape.verb] then
        acknowledged(old.worker_id)
    elseif RETURNING[shape.verb] and not old.acknowledged and old.claim_time then
        returned(old.worker_id, old.claim_time, shape.verb == 'reap')
    end
    if TAKEN_AWAY[shape.verb] then
        tell_worker('lost', old, '')
    end
end
