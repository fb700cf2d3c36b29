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
    if account.silent then
        return 'silent'
    end
    if account.returns >= MAX_RETURNED and NOW < account.returned_at + REFUSED_FOR then
        return 'not_acknowledging'
    end
    return 'ok'
end

-- Up to `limit` jobs from the head that are not expired, and how many expired ones were seen.
local function alive(name, limit)
    local ids = redis.call('ZRANGE', index(name, 'queued'), 0, limit - 1)
    local found, expired = {}, 0
    load(ids)
    for _, id in ipairs(ids) do
        local row = rows[id]
        if not row or row.fields.state ~= 'queued' then
            place(index(name, 'queued'), id, false) -- an entry of no job must not hold up the queue
        elseif is_expired(row.fields) then
            expired = expired + 1
        else
            found[#found + 1] = row
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
