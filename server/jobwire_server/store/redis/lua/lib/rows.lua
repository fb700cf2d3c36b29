-- The jobs of this call: read once, changed in memory (changes.lua), written at the end (flush.lua).
local rows = {}
local blobs = {}

-- A table with room for the fields of a job: growing into it step by step would cost more than the reading.
local function room_for_fields()
    return { state = nil, score = nil, version = nil, revision = nil, queue = nil, type = nil, create_time = nil,
        update_time = nil, queue_time = nil, start_time = nil, finish_time = nil, attempt = nil, token = nil,
        fence = nil, worker_id = nil, claim_time = nil, lease_duration = nil }
end

local function read(id)
    local flat = redis.call('HGETALL', TAG .. JOB .. id)
    if #flat == 0 then
        return false
    end
    local fields = room_for_fields()
    for i = 1, #flat, 2 do
        fields[flat[i]] = flat[i + 1]
    end
    return { id = id, fields = fields, spec = '', result = false, detail = false, put = {}, stored = flat }
end

-- Reads these jobs unless they have been. rows[id] is false when there is none, else: its fields by name, `spec`,
-- `result` and `detail` (strings; false = none), `stored` and `put` (name, value, … as stored and as written since).
local function load(ids)
    local keys, owners, kinds = {}, {}, {}
    local function ask(row, kind, key)
        local at = #keys + 1
        keys[at], owners[at], kinds[at] = TAG .. key .. row.id, row, kind
    end
    for _, id in ipairs(ids) do
        if rows[id] == nil then
            local row = read(id)
            rows[id] = row
            if row then
                local beside = row.fields.beside or ''
                ask(row, 'spec', SPEC)
                if string.find(beside, 'r', 1, true) then ask(row, 'result', RESULT) end
                if string.find(beside, 'd', 1, true) then ask(row, 'detail', DETAIL) end
            end
        end
    end
    for first = 1, #keys, 900 do
        local last = math.min(first + 899, #keys)
        for i, value in ipairs(redis.call('MGET', unpack(keys, first, last))) do
            owners[first + i - 1][kinds[first + i - 1]] = value
        end
    end
    for i, row in ipairs(owners) do
        row.spec = row.spec or ''
        if kinds[i] == 'detail' and row.detail then
            for part, value in pairs(cjson.decode(row.detail)) do
                row.fields[part] = value
            end
        end
    end
end
