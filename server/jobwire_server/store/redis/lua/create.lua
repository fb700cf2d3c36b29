#!lua
-- Adds each job unless the same request came before.
-- Guard: the request key (remembered for a day), then the id; a digest tells the same request from another.
-- Returns: JSON list of [outcome, id, position, state, score, queue_time] for a new job, [outcome, id, position, job or
--   false] for one that existed, [outcome, id] otherwise.
-- Keeps: a full store refuses the call whole; sent again, it answers as it did.
--!include call rows changes fields names places outage hints queues workers flush creating
local done = done_before() or {}
local answers, existing, created, requests, has_created = {}, {}, {}, {}, false

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
    return rows[id] and rows[id].fields.digest or redis.call('HGET', TAG .. JOB .. id, 'digest')
end

local function judged(i, new, submission)
    local id, digest, known_id = new.id, nil, nil
    if new.request_key then
        digest, known_id = remembered(new.request_key)
    end
    if done[i] == 1 then
        existing[i] = id
        return { 'created', id }
    end
    if known_id and digest ~= new.digest then
        return { 'request_reused', known_id }
    end
    if not known_id then
        digest = digest_of(id)
        if digest and not (new.id_given and digest == new.digest) then
            return { 'id_taken', id }
        end
        if new.request_key then
            requests[new.request_key] = text(NOW + REMEMBERED) .. ' ' .. new.digest .. ' ' .. id
        end
        if not digest and not next(done) then
            has_created = true
            created[i] = 1
            return add(new, submission)
        end
    end
    existing[i] = known_id or id
    return { 'existed', existing[i] }
end

for i, new in ipairs(ARGS) do
    created[i] = 0
    answers[i] = judged(i, new, take(new.submission_size))
end
if next(done) then
    created = done
end
local change, told = flush()
for key, value in pairs(requests) do
    redis.call('SET', TAG .. REQUEST .. key, value, 'PX', REMEMBERED / 1000)
end
remember(created, has_created)
for i, each in ipairs(answers) do
    local id = existing[i]
    if id then
        load({ id })
        local row = rows[id]
        local place_in_queue = row and position(row.fields.queue, row.fields.state) or 0
        answers[i] = encoded_list({ cjson.encode(each[1]), cjson.encode(id), place_in_queue, encoded(row) })
    else
        answers[i] = cjson.encode(each)
    end
end
return answer(change, told, encoded_list(answers))
