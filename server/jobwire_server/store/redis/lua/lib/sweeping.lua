-- Heads of many queues as one list.

-- The chosen queues, as a set (nil = all) and as a list.
local function chosen(names)
    if not names[1] then
        return nil, redis.call('SMEMBERS', TAG .. QUEUES)
    end
    local set_of, list = {}, {}
    for _, name in ipairs(names) do
        if not set_of[name] then
            set_of[name] = true
            list[#list + 1] = name
        end
    end
    return set_of, list
end

-- The lowest by that field, then by id.
local function first_of(list, limit, field)
    table.sort(list, function(a, b)
        local x, y = tonumber(a.fields[field]), tonumber(b.fields[field])
        return x < y or (x == y and is_before(a.id, b.id))
    end)
    for i = #list, limit + 1, -1 do
        list[i] = nil
    end
    return list
end

local function encoded_rows(list)
    local texts = {}
    for i, row in ipairs(list) do
        texts[i] = encoded(row)
    end
    return encoded_list(texts)
end
