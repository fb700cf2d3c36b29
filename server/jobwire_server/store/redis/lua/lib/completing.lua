-- The end of a lease by completion. A completed job is { id, fields, put, drops }: what is written into its hash, and
-- which of its fields go.
local completed, results, gone = {}, {}, {}
local GOES = { 'acknowledged', 'lease_expire_time', 'release_count', 'return_count' }

-- The last error goes, the history stays.
local function detail_without_error(id)
    local key = TAG .. DETAIL .. id
    local parts = cjson.decode(redis.call('GET', key) or '{}')
    parts.error = nil
    if next(parts) then
        results[#results + 1], results[#results + 2] = key, cjson.encode(parts)
        return 'd'
    end
    gone[#gone + 1] = key
    return ''
end

local function beside_of(id, beside, result)
    local left = beside and string.find(beside, 'd', 1, true) and detail_without_error(id) or ''
    if result then
        results[#results + 1], results[#results + 2] = TAG .. RESULT .. id, result
        return left .. 'r'
    end
    return left
end

-- Answers whether that removed the job: its retention is 0.
local function complete(id, fields, operation, result)
    local name, worker_id = fields.queue, fields.worker_id
    local retention = tonumber(fields.retention or queue(name).retention or DEFAULT_RETENTION.completed)
    place(leases_of(worker_id), id, false)
    tell_count('freed', worker_id, 1)
    acknowledged(worker_id)
    slot_freed(name)
    if retention == 0 then
        remove(id, fields, 'in_progress', false)
        return true
    end
    local drops
    for _, field in ipairs(GOES) do
        if fields[field] then
            drops = drops or {}
            drops[#drops + 1] = field
        end
    end
    fields.state, fields.score, fields.update_time, fields.finish_time = 'completed', text(NOW + retention), NOW_TEXT, NOW_TEXT
    fields.version, fields.revision = (fields.version or 1) + 1, (fields.revision or 1) + 1
    local put = { TAG .. JOB .. id, 'state', 'completed', 'score', fields.score, 'version', fields.version,
        'revision', fields.revision, 'update_time', NOW_TEXT, 'last_operation', operation, 'outcome', 'completed',
        'end_time', NOW_TEXT, 'finish_time', NOW_TEXT }
    if not fields.start_time then
        put[20], put[21] = 'start_time', fields.claim_time
    end
    if result or fields.beside then
        put[#put + 1], put[#put + 2] = 'beside', beside_of(id, fields.beside, result)
    end
    completed[#completed + 1] = { put = put, drops = drops }
    place(index(name, 'in_progress'), id, false)
    place(index(name, 'completed'), id, fields.score)
    return false
end

-- After the flush, which has looked whether the indices can be written.
local function write_completed()
    for _, each in ipairs(completed) do
        redis.call('HSET', unpack(each.put))
        if each.drops then
            redis.call('HDEL', each.put[1], unpack(each.drops))
        end
    end
    call_with('MSET', nil, results, 2)
    call_with('UNLINK', nil, gone, 1)
end
