#!lua
-- Adds each job unless the same request came before.
-- Guard: the request key (remembered for a day), then the id; a digest tells the same request from another.
-- Returns: JSON list of ["created", position, state, score, queue_time or null] for a new job, [outcome, id, position, job
--   or false] for one that existed, [outcome, id] otherwise.
-- Keeps: a full store refuses the call whole; sent again, it answers as it did.
--!include call rows changes fields names places outage hints queues workers flush creating
local done = done_before() or {}
local answers, existing, positions, created, requests, digests, has_created = {}, {}, {}, {}, {}, {}, false
local some_exist = exist(ARGS)

-- The digest and the id that this request key stands for; nothing when it is not known.
local function remembered(key)
    local found = requests[key] or redis.call('GET', TAG .. REQUEST .. key)
    if found then
        local forgotten_at, digest, id = string.match(found, '^(%d+) (%S*) (%S+)$')
        if tonumber(forgotten_at) > NOW then
            return digest, id
        end
    end
end

local function digest_of(id)
    return digests[id] or some_exist and redis.call('HGET', TAG .. JOB .. id, 'digest')
end

local function judged(i, new, submission)
    local id, key, digest, known_id = new[1], new[3], nil, nil
    if key then
        digest, known_id = remembered(key)
    end
    if done[i] == 1 then
        existing[i], positions[i] = id, position_of(id) or 0
        return 'created'
    end
    if known_id and digest ~= new[4] then
        return '["request_reused","' .. known_id .. '"]'
    end
    if not known_id then
        digest = digest_of(id)
        if digest and not (new[2] and digest == new[4]) then
            return '["id_taken","' .. id .. '"]'
        end
        if key then
            requests[key] = text(NOW + REMEMBERED) .. ' ' .. new[4] .. ' ' .. id
        end
        if not digest and not next(done) then
            has_created, created[i], digests[id] = true, 1, new[4]
            return add(new, submission)
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

for i, new in ipairs(ARGS) do
    created[i] = 0
    answers[i] = judged(i, new, take(new[10]))
end
if next(done) then
    created = done
end
local change, told = flush(has_created)
write_created()
for key, value in pairs(requests) do
    redis.call('SET', TAG .. REQUEST .. key, value, 'PX', REMEMBERED / 1000)
end
remember(created, has_created)
for i = 1, #answers do
    local id = existing[i]
    if id then
        load({ id })
        answers[i] = encoded_list({ '"' .. answers[i] .. '"', '"' .. id .. '"', positions[i], encoded(rows[id]) })
    end
end
return answer(change, told, encoded_list(answers))
