-- Who may claim, and what is at the head of the queue.
local function may_claim(request)
    local account = worker(request.worker_id)
    if is_lower(request.session, account.session) then
        return 'superseded'
    end
    if is_lower(account.session, request.session) then
        account.session = request.session
        account.dirty.session = request.session
    end
    if account.directive ~= 'none' then
        return 'quiet'
    end
    if account.silent then
        return 'silent'
    end
    if account.returns >= MAX_RETURNED and NOW < account.returned_at + REFUSED_FOR then
        return 'not_acknowledging'
    end
    return 'ok'
end

-- Up to `limit` jobs from the head that are not expired, and how many expired ones were seen. A job is { id, key, record,
-- fields }, without fields where it is plain.
local function alive(name, limit)
    local found, expired = {}, 0
    local ids = redis.call('ZRANGE', index(name, 'queued'), 0, limit - 1)
    local records, keys = records_of(ids)
    for i, id in ipairs(ids) do
        local record = records[i]
        local is_fresh = record and is_plain(record)
        local fields = record and not is_fresh and fields_in(record)
        if fields then
            check_state(fields.state)
        end
        if not (is_fresh or fields and fields.state == 'queued') then
            place(index(name, 'queued'), id, false) -- an entry of no job must not hold up the queue
        elseif fields and is_expired(fields) then
            expired = expired + 1
        else
            found[#found + 1] = { id = id, key = keys[i], record = record, fields = fields }
        end
    end
    return found, expired
end

local function head_of(name, wanted)
    local found, expired = alive(name, wanted)
    if expired == 0 then
        return found, 0
    end
    hints.expired_seen = true
    if #found < wanted then
        found, expired = alive(name, wanted + LOOK_PAST)
    end
    return found, expired
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
                jobs[#jobs + 1] = row
            end
        end
        grants[i] = { outcome = #jobs > 0 and 'ok' or may_claim(request), limit = 0, jobs = jobs }
    end
end
