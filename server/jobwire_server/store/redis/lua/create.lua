#!lua
-- Adds each job unless the same request came before.
-- Guard: the request key (remembered for a day), then the id; a digest tells the same request from another.
-- Returns: JSON list of [position, score, queue_time or null] for a new job (SCHEDULED without queue_time), in a brief
--   answer 1; [outcome, id, position, job or false] for one that existed, [outcome, id] otherwise.
-- Keeps: a full store refuses the call whole; sent again, it answers as it did.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush plain existing creating
local shapes, new_jobs, brief = ARGS[1], ARGS[2], ARGS[3]
local done = done_before() or {}
local answers, existing, positions, created, requests, keys, has_created = {}, {}, {}, {}, {}, {}, false
for i, new in ipairs(new_jobs) do
    keys[i] = key_of(new[1])
end
local some_exist, known = exist(keys), known_requests(new_jobs)

-- The digest and the id that this request key stands for; nothing when it is not known.
local function remembered(key)
    local found = requests[key] or known[key]
    if found then
        local forgotten_at, id, digest = string.match(found, '^(%d+) (%S+) (.*)$')
        if tonumber(forgotten_at) > NOW then
            return digest, id
        end
    end
end

local function judged(i, new, spec)
    local shape, id, key, digest, known_id = shapes[new[2]], new[1], new[4], nil, nil
    if key then
        digest, known_id = remembered(key)
    end
    if done[i] == 1 then
        existing[i], positions[i] = id, position_of(id) or 0
        return 'created'
    end
    if known_id and digest ~= digest_in(spec) then
        return '["request_reused","' .. known_id .. '"]'
    end
    if not known_id then
        digest = digest_of(id, some_exist)
        if digest and not (shape[1] and digest == digest_in(spec)) then
            return '["id_taken","' .. id .. '"]'
        end
        if key then
            requests[key] = text(NOW + REMEMBERED) .. ' ' .. id .. ' ' .. digest_in(spec)
        end
        if not digest and not next(done) then
            has_created, created[i], specs[id] = true, 1, spec
            local place_in_queue, score, queue_time = add(keys[i], new, shape, spec)
            return brief and '1' or '[' .. place_in_queue .. ',' .. score .. ',' .. (queue_time or 'null') .. ']'
        end
    end
    id = known_id or id
    positions[i] = position_of(id)
    if not positions[i] then
        return '["existed","' .. id .. '",0,false]'
    end
    existing[i] = id
    return 'existed'
end

for i, new in ipairs(new_jobs) do
    created[i] = 0
    answers[i] = judged(i, new, take(new[3]))
end
tell_created()
local change, told = flush(has_created)
for key, value in pairs(requests) do
    redis.call('SET', TAG .. REQUEST .. key, value, 'PX', REMEMBERED / 1000)
end
remember(next(done) and done or created, has_created)
for i = 1, #answers do
    local id = existing[i]
    if id then
        answers[i] = encoded_list({ '"' .. answers[i] .. '"', '"' .. id .. '"', positions[i], encoded(as_stored(id)) })
    end
end
return answer(change, told, encoded_list(answers))
