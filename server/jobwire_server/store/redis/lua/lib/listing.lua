-- Walking along a listing, as domain.filter.Position describes it, and saying how far it came.
local BEHIND_ALL = '9223372036854775807' -- a score
local BITE = 100

local order_of = {}
for i, state in ipairs(STATES) do
    order_of[state] = i
end

-- Ranks in the order of ZREVRANGE: from, to.
local function newest_first(key, wanted, after)
    local number = redis.call('ZCARD', key)
    local lowest, above = 0, number
    if wanted.created_from then
        lowest = redis.call('ZCOUNT', key, '-inf', '(' .. wanted.created_from)
    end
    if wanted.created_before then
        above = redis.call('ZCOUNT', key, '-inf', '(' .. wanted.created_before)
    end
    if after and after[4] == '' then -- before all of that time, and the newest come first
        above = math.min(above, redis.call('ZCOUNT', key, '-inf', after[3]))
    elseif after then
        above = math.min(above, (place_in(key, after[3], after[4])))
    end
    return number - above, number - 1 - lowest
end

-- Calls visit(id, queue, state) for each job of the listing that `wanted` asks for (listings.py), until SCAN were looked
-- at or there is one more when `is_full()`. Answers the place behind which nothing was looked at; false = nothing is.
local function walk(wanted, visit, is_full)
    local after, looked = wanted.after, 0
    local behind = after

    -- True when it stopped before the end of that index.
    local function through(command, key, from, to, queue, state)
        for first = from, to, BITE do
            local got = redis.call(command, key, first, math.min(first + BITE - 1, to), 'WITHSCORES')
            for i = 1, #got, 2 do
                if looked >= SCAN or is_full() then
                    return true
                end
                looked, behind = looked + 1, { queue, state, got[i + 1], got[i] }
                visit(got[i], queue, state)
            end
        end
        return false
    end

    local function through_state(name, state, is_at)
        local key, from = index(name, state), 0
        if is_at and state == after[2] then
            local before, is_there = place_in(key, after[3], after[4])
            from = before + (is_there and 1 or 0)
        end
        local to = redis.call('ZCARD', key) - 1
        if from <= to then
            return through('ZRANGE', key, from, to, name, state)
        elseif looked >= SCAN then
            return true
        end
        looked, behind = looked + 1, { name, state, BEHIND_ALL, '' } -- it counts: there may be very many like it
        return false
    end

    if wanted.user then
        local key = TAG .. USER .. redis.sha1hex(wanted.user)
        local from, to = newest_first(key, wanted, after)
        return through('ZREVRANGE', key, from, to, '', STATES[1]) and behind
    end
    for _, name in ipairs(wanted.queues) do
        local is_at = after and name == after[1]
        for _, state in ipairs(wanted.states) do
            if (not is_at or order_of[state] >= order_of[after[2]]) and through_state(name, state, is_at) then
                return behind
            end
        end
    end
    return false
end
