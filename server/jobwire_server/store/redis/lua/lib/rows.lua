-- The jobs of this call: read once, changed in memory (changes.lua), written at the end (flush.lua).
local rows = {}
local blobs = {}

-- A table with room for the fields of a job: growing into it step by step would cost more than the reading.
local function room_for_fields()
    return { state = nil, score = nil, version = nil, revision = nil, queue = nil, type = nil, create_time = nil,
        update_time = nil, queue_time = nil, start_time = nil, finish_time = nil, attempt = nil, token = nil,
        fence = nil, worker_id = nil, claim_time = nil, lease_duration = nil }
end

-- A job's hash as it is stored (name, value, …) and by name; nil when there is none.
local function fields_of(id)
    local stored = redis.call('HGETALL', TAG .. JOB .. id)
    if #stored == 0 then
        return nil
    end
    local fields = room_for_fields()
    for i = 1, #stored, 2 do
        fields[stored[i]] = stored[i + 1]
    end
    return fields, stored
end

local function read(id)
    local fields, stored = fields_of(id)
    return fields
        and { id = id, fields = fields, spec = '', result = false, detail = false, put = {}, stored = stored }
        or false
end

local function mget(keys)
    local values = {}
    for first = 1, #keys, 900 do
        for i, value in ipairs(redis.call('MGET', unpack(keys, first, math.min(first + 899, #keys)))) do
            values[first + i - 1] = value
        end
    end
    return values
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
    local values = mget(keys)
    for i, row in ipairs(owners) do
        row[kinds[i]] = values[i]
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
