#!lua flags=no-writes
-- Reads the ids of jobs that a call may have met.
-- Guard: none.
-- Returns: JSON list of ids; some may come twice.
-- Keeps: everything. Looks into no record. 1,000 of each index, 10,000 in all.
--!include call names order listing
local EACH, ALL = 1000, 10000
local found = {}

local function add(ids)
    for _, id in ipairs(ids) do
        found[#found + 1] = id
    end
end

local function heads(key, up_to)
    if #found < ALL then
        add(redis.call('ZRANGEBYSCORE', key, '-inf', up_to, 'LIMIT', 0, EACH))
    end
end

add(ARGS.ids)
for _, request in ipairs(ARGS.requests) do
    add({ string.match(redis.call('GET', TAG .. REQUEST .. request) or '', '^%d+ (%S+)') })
end
for _, id in ipairs(ARGS.workers) do
    heads(leases_of(id), '+inf')
end
if ARGS.states[1] then
    for _, name in ipairs(ARGS.queues[1] and ARGS.queues or redis.call('SMEMBERS', TAG .. QUEUES)) do
        for _, state in ipairs(ARGS.states) do
            heads(TAG .. INDEX .. name .. ':' .. state, ARGS.is_due and NOW_TEXT or '+inf')
        end
    end
end
if ARGS.expiring then
    heads(TAG .. EXPIRY, NOW_TEXT)
end
if ARGS.listing then
    walk(ARGS.listing, function(id)
        add({ id })
    end, function()
        return false
    end)
end
return { NOW_TEXT, '', '', #found > 0 and cjson.encode(found) or '[]', '' }
