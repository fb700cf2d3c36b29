-- The order of ids: by their bytes, as in sorted sets. `<` on texts would ask the engine's locale.
local function is_before(a, b)
    for at = 1, math.min(#a, #b) do
        local x, y = string.byte(a, at), string.byte(b, at)
        if x ~= y then
            return x < y
        end
    end
    return #a < #b
end

-- How many members of a sorted set stand before (score, id), and whether that very one is there. An id that has gone is
-- looked for among those of its score by halving: any number may share one.
local function place_in(key, score, id)
    local first = redis.call('ZCOUNT', key, '-inf', '(' .. score)
    if id == '' then
        return first, false
    end
    local found = redis.call('ZSCORE', key, id)
    if found and tonumber(found) == tonumber(score) then
        return redis.call('ZRANK', key, id), true
    end
    local last = first + redis.call('ZCOUNT', key, score, score)
    while first < last do
        local middle = math.floor((first + last) / 2)
        if is_before(redis.call('ZRANGE', key, middle, middle)[1], id) then
            first = middle + 1
        else
            last = middle
        end
    end
    return first, false
end
