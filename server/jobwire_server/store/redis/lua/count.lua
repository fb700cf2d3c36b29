#!lua flags=no-writes
-- Counts jobs by state: whole where the sizes of the indices say it, else those of the next stretch of a listing.
-- Guard: none.
-- Returns: JSON [object of state to number, place behind which nothing was looked at, or false].
-- Keeps: everything. A stretch ends after SCAN jobs.
--!include call rows changes fields names order listing matching
local wanted, is_whole = ARGS[1], ARGS[2]
local counts, behind = {}, false

local function add(state, number)
    if number > 0 then
        counts[state] = (counts[state] or 0) + number
    end
end

if is_whole then
    local names = wanted.queues[1] and wanted.queues or redis.call('SMEMBERS', TAG .. QUEUES)
    for _, name in ipairs(names) do
        local is_meant = wanted.queues[1] or string.sub(name, 1, #RESERVED) ~= RESERVED
        for _, state in ipairs(is_meant and wanted.states or {}) do
            add(state, redis.call('ZCARD', TAG .. INDEX .. name .. ':' .. state))
        end
    end
else
    local state_of = matcher(wanted)
    behind = walk(wanted, function(id, queue, state)
        local found = state_of(id, queue, state)
        if found then
            add(found, 1)
        end
    end, function()
        return false
    end)
end
return { NOW_TEXT, '', '', '[' .. cjson.encode(counts) .. ',' .. cjson.encode(behind) .. ']', '' }
