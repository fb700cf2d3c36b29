#!lua flags=no-writes
-- Reads jobs, or what is left of them, with what stands around each, all at one moment.
-- Guard: none.
-- Returns: JSON list of the sizes of four parts in the blob, for one job after the other; each part is split by NUL:
--   record, detail, places (kind, name, score, …), and [what is kept beside it, what it says is, queue listed, its last
--   queue_time, holder listed].
-- Keeps: everything. What is damaged is answered like what is missing: whoever looks for damage must not end at it.
--!include call names damaged
local blobs, sizes, known = {}, {}, {}
local pcall, concat = redis.pcall, table.concat

local function is_there(key)
    return redis.call('EXISTS', key) == 1
end

-- Asked once in a call.
local function is_listed(list, name)
    local key = list .. name
    known[key] = known[key] or (pcall('SISMEMBER', TAG .. list, name) == 1 and '1' or '')
    return known[key]
end

local function last_queue_time(name)
    local key = QUEUE .. name
    known[key] = known[key] or text_of(pcall('HGET', TAG .. key, 'last_queue_time'))
    return known[key]
end

local function look(found, kind, name, key, id)
    local score = pcall('ZSCORE', key, id)
    if type(score) == 'string' then
        found[#found + 1], found[#found + 2], found[#found + 3] = kind, name, score
    end
end

-- The places that its fields name, and the one that named it.
local function places(asked, id, queue, state, expire_time, worker_id, user_id)
    local found = {}
    if queue and state then
        look(found, 'state', queue .. ':' .. state, index(queue, state), id)
    end
    if expire_time then
        look(found, 'expiry', '', TAG .. EXPIRY, id)
    end
    if worker_id then
        look(found, 'lease', worker_id, leases_of(worker_id), id)
    end
    if user_id then
        local user = redis.sha1hex(user_id)
        look(found, 'user', user, TAG .. USER .. user, id)
    end
    if asked[2] then
        look(found, asked[2], asked[3], asked[4], id)
    end
    return concat(found, '\0')
end

local function put(part)
    blobs[#blobs + 1], sizes[#sizes + 1] = part, #part
end

for _, asked in ipairs(ARGS) do
    local id = take(asked[1])
    local record = text_of(pcall('GET', TAG .. JOB .. id))
    local fields = texts_in(record)
    local queue, worker_id = fields.queue or '', fields.worker_id or ''
    local detail = pcall('GET', TAG .. DETAIL .. id)
    local beside = (type(detail) == 'string' and 'd' or '') .. (is_there(TAG .. RESULT .. id) and 'r' or '')
    if record == '' and is_there(TAG .. SPEC .. id) then
        beside = beside .. 's' -- no record says whether there is one
    end
    put(record)
    put(text_of(detail))
    put(places(asked, id, fields.queue, fields.state, fields.expire_time, fields.worker_id, fields.user_id))
    put(concat({ beside, fields.beside or '', is_listed(QUEUES, queue), last_queue_time(queue), is_listed(WORKERS, worker_id) },
        '\0'))
end
return { NOW_TEXT, '', '', cjson.encode(sizes), concat(blobs) }
