-- Workers' accounts as this call has them: session, deliveries that came back, silence, what an operator wants.
local workers = {}

local function worker(id)
    local found = workers[id]
    if not found then
        local got = redis.call('HMGET', TAG .. WORKER .. id,
            'last_beat', 'session', 'returns', 'returned_at', 'returned_claim', 'silent', 'directive')
        found = { session = got[2] or '0', returns = tonumber(got[3] or '0'), returned_at = tonumber(got[4] or '0'),
            returned_claim = got[5], silent = got[6] == '1', last_beat = tonumber(got[1] or NOW_TEXT),
            directive = got[7] or 'none', dirty = {} }
        if not got[1] then
            found.is_new = true
            found.dirty.last_beat, found.dirty.register_time = NOW_TEXT, NOW_TEXT
        end
        workers[id] = found
    end
    return found
end

-- Sessions have up to 64 bits, numbers in Lua 53.
local function is_lower(session, than)
    return #session < #than or (#session == #than and session < than)
end

-- A delivery came back unacknowledged, by its deadline (`ran_out`) or before. What one claim handed out counts once;
-- what was under way while the store was away does not count. Nor is one silent that has been heard since: it has opened
-- a stream anew, and may have nothing to beat for.
local function returned(id, claim_time, ran_out)
    if tonumber(claim_time) <= recovered_at() then
        return
    end
    local account = worker(id)
    if account.returned_claim ~= claim_time then
        account.returns = account.returns + 1
        account.returned_claim = claim_time
        account.dirty.returns, account.dirty.returned_claim = text(account.returns), claim_time
    end
    account.dirty.returned_at = NOW_TEXT
    if ran_out and tonumber(claim_time) >= account.last_beat then
        account.silent = true
        account.dirty.silent = '1'
    end
end

local function end_silence(id, account)
    if account.silent then
        account.silent = false
        account.dirty.silent = false
        hints.heard = hints.heard or {}
        table.insert(hints.heard, id)
    end
end

-- It renewed or settled a lease: deliveries reach it.
local function acknowledged(id)
    local account = worker(id)
    if account.returns > 0 then
        account.returns = 0
        account.dirty.returns = false
    end
    end_silence(id, account)
end

local function write_workers()
    for id, account in pairs(workers) do
        if account.is_new then
            redis.call('SADD', TAG .. WORKERS, id)
        end
        write_hash(TAG .. WORKER .. id, account.dirty)
    end
end
