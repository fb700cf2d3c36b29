-- Where jobs stand: the state indices, the expiry index, the leases, the users' jobs.
local WAITING = { scheduled = true, queued = true }
local ENDED = { completed = true, failed = true, canceled = true, expired = true }

local function expiry_of(state, fields)
    return WAITING[state] and not fields.start_time and fields.expire_time or false
end

-- The job, which stood in `from` (false = nowhere) with that expiry, stands where its fields say.
local function placed(row, from, old_expiry)
    local fields = row.fields
    if from and from ~= fields.state then
        place(index(fields.queue, from), row.id, false)
    end
    place(index(fields.queue, fields.state), row.id, fields.score)
    local expiry = expiry_of(fields.state, fields)
    if expiry ~= old_expiry then
        place(TAG .. EXPIRY, row.id, expiry and as_score(expiry))
    end
end

-- The job goes, with all that stands beside it; `last` = as it ended, where that is why it goes.
local function remove(id, fields, from, old_expiry, last)
    if is_watched() then
        tell_gone(id, fields, last)
    end
    place(index(fields.queue, from), id, false)
    if old_expiry then
        place(TAG .. EXPIRY, id, false)
    end
    if fields.user_id then
        place(TAG .. USER .. redis.sha1hex(fields.user_id), id, false)
    end
    for _, kind in ipairs({ JOB, SPEC, RESULT, DETAIL }) do
        removed[#removed + 1] = TAG .. kind .. id
    end
    rows[id] = false
end
