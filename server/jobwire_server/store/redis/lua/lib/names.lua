-- Names of keys that many jobs of one call share, put together once.
local index_keys = {}
local function index(queue, state)
    local keys = index_keys[queue]
    if not keys then
        keys = {}
        index_keys[queue] = keys
    end
    keys[state] = keys[state] or TAG .. INDEX .. queue .. ':' .. state
    return keys[state]
end

-- Of a mark in a queue's hash of marks.
local function mark_field(step, number, slots)
    return text(step / 1000000) .. ':' .. text(number % slots)
end

local lease_keys = {}
local function leases_of(worker_id)
    lease_keys[worker_id] = lease_keys[worker_id] or TAG .. LEASES .. worker_id
    return lease_keys[worker_id]
end
