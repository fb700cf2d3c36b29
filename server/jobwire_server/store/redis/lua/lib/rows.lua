-- The jobs of this call: read once, changed in memory (changes.lua), written at the end (flush.lua).
local rows = {}
local blobs = {}

local function mget(keys)
    local values = {}
    for first = 1, #keys, 900 do
        for i, value in ipairs(redis.call('MGET', unpack(keys, first, math.min(first + 899, #keys)))) do
            values[first + i - 1] = value
        end
    end
    return values
end

local function key_of(id)
    return TAG .. JOB .. id
end

-- The records of these jobs as they are stored; false = there is none.
local function records_of(ids)
    local keys = {}
    for i, id in ipairs(ids) do
        keys[i] = key_of(id)
    end
    return mget(keys), keys
end

-- The fields of a record by name. Of one that is damaged the script must fail before anything is written.
local function fields_in(record)
    local fields = cjson.decode(record)
    return fields.state and fields or error('a job without a state')
end

-- What a request was told from others by: it stands before the submission, after a byte for its length.
local function digest_in(spec)
    return string.sub(spec, 2, 1 + (string.byte(spec) or 0))
end

local function has_beside(fields, letter)
    return fields.beside and string.find(fields.beside, letter, 1, true) and true or false
end

-- Reads these jobs unless they have been. rows[id] is false when there is none, else { id, record, fields, detail },
-- the latter two by name; `encoded` adds what is only answered: `spec` and `result` (false = none).
local function load(ids)
    local asked = {}
    for _, id in ipairs(ids) do
        if rows[id] == nil then
            rows[id] = false
            asked[#asked + 1] = id
        end
    end
    for i, record in ipairs(records_of(asked)) do
        if record then
            local fields = fields_in(record)
            local detail = has_beside(fields, 'd') and redis.call('GET', TAG .. DETAIL .. asked[i])
            rows[asked[i]] = { id = asked[i], record = record, fields = fields,
                detail = detail and cjson.decode(detail) or {} }
        end
    end
end
