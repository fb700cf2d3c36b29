#!lua flags=allow-oom
-- Leases jobs from the head of a queue to each request in turn.
-- Guard: the queue's pause and ceiling; the worker's session, silence, returned deliveries and credit.
-- Returns: JSON {claimed: list of [outcome, held, jobs], remaining}.
-- Keeps: no worker holds more than its max_in_flight; expired jobs are looked past, a few; sent again, the call answers
--   what its tokens took and takes nothing more.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush plain leasing leases claiming
local name, requests = ARGS[1], ARGS[2]
local settings = queue(name)
local waiting = redis.call('ZCARD', index(name, 'queued'))
local running = settings.max_in_flight and redis.call('ZCARD', index(name, 'in_progress')) or 0
local held, grants, wanted, taken = {}, {}, 0, 0

local function room(already_taken)
    if settings.paused then
        return 0
    end
    local left = waiting - already_taken
    return settings.max_in_flight and math.min(left, settings.max_in_flight - running - already_taken) or left
end

local function held_by(id)
    held[id] = held[id] or redis.call('ZCARD', leases_of(id))
    return held[id]
end

local function grant(request)
    local outcome, limit = may_claim(request), 0
    if outcome == 'ok' then
        -- Earlier requests of the same worker in this call hold what they were granted already.
        limit = math.max(0, math.min(#request.tokens, request.max_in_flight - held_by(request.worker_id), room(wanted)))
        wanted = wanted + limit
        held[request.worker_id] = held_by(request.worker_id) + limit
    end
    return { outcome = outcome, limit = limit, jobs = {} }
end

local function hand_out(head, each, request)
    local terms, jobs = each.limit > 0 and terms_of(name, request), each.jobs
    while #jobs < each.limit and taken < #head do
        taken = taken + 1
        jobs[#jobs + 1] = head[taken]
        lease(head[taken], terms, request.tokens[#jobs])
    end
    if each.outcome == 'ok' then
        held[request.worker_id] = held[request.worker_id] - each.limit + #jobs
    end
end

local done, head, seen_expired = done_before(), {}, 0
if done then
    taken_before(done, requests, grants)
else
    for i, request in ipairs(requests) do
        grants[i] = grant(request)
    end
    if wanted > 0 then
        head, seen_expired = head_of(name, wanted)
    end
    for i, each in ipairs(grants) do
        hand_out(head, each, requests[i])
    end
end
if taken > 0 then
    happened(name, 'claimed', taken)
end
local change, told = flush(taken > 0)
encode_leased()
local said, ids = { '{"claimed":[' }, {} -- in one list: the engine hashes each text that is put together, byte by byte
for i, each in ipairs(grants) do
    local own_ids = {}
    said[#said + 1] = (i > 1 and ',["' or '["') .. each.outcome .. '",' .. held_by(requests[i].worker_id) .. ',['
    for n, job in ipairs(each.jobs) do
        own_ids[n], said[#said + 1], said[#said + 2] = job.id, n > 1 and ',' or '', job.encoded or encoded(job)
    end
    ids[i], said[#said + 1] = own_ids, ']]'
end
remember(done or ids, taken > 0)
local remaining = math.max(0, math.min(waiting - taken - seen_expired, room(taken)))
said[#said + 1] = '],"remaining":' .. text(remaining) .. '}'
return answer(change, told, table.concat(said))
