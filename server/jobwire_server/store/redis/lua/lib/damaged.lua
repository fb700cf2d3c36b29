-- Reading what may be damaged: whatever is wrong is like what is missing.
local function text_of(answer)
    return type(answer) == 'string' and answer or ''
end

-- The fields of a record that are texts, by name.
local function texts_in(record)
    local is_json, found = pcall(cjson.decode, record)
    local fields = {}
    for name, value in pairs(is_json and type(found) == 'table' and found or {}) do
        if type(name) == 'string' and type(value) == 'string' then
            fields[name] = value
        end
    end
    return fields
end
