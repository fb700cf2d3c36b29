-- What happened to the jobs of queues in this call, counted in their records (domain.activity).

-- `event` is a field of the tally: so many jobs met with it, or ran for so long.
local function happened(name, event, number)
    local found = queue(name)
    local sum = (found.events[event] or 0) + number
    assert(sum < 2 ^ 53, 'damaged') -- before anything is written
    found.events[event] = sum
    found.changed = found.changed or found.is_new
end

-- For how long the attempt ran that ends now; a clock that was set back must not take away from others.
local function run_time(fields)
    return math.max(0, NOW - (fields.claim_time or NOW))
end

-- The job came from one state to another.
local function tally_state(name, from, to)
    if from ~= to and (to == 'completed' or to == 'failed') then
        happened(name, to, 1)
    end
end

-- The first event of a step of time is about to be counted: what the tally has been until then.
local function write_marks(name, key, tallied_at)
    local tally = redis.call('HMGET', key, tally_fields())
    for i = 1, #tally do
        tally[i] = tally[i] or '0'
    end
    local counted = table.concat(tally, ' ')
    for step, slots in pairs({ [SHORT_STEP] = SHORT_SLOTS, [LONG_STEP] = LONG_SLOTS }) do
        local number = math.floor(NOW / step)
        if number ~= math.floor(tallied_at / step) then
            redis.pcall('HSET', TAG .. MARKS .. name, mark_field(step, number, slots),
                text(step) .. ' ' .. text(number) .. ' ' .. counted)
        end
    end
    redis.call('HSET', key, 'tallied_at', NOW_TEXT)
end

-- A number that is damaged must not stop the jobs: it stays as it is, and `fsck` names it.
local function write_tallies()
    for name, each in pairs(queues) do
        if next(each.events) then
            local key = TAG .. QUEUE .. name
            if math.floor(NOW / SHORT_STEP) ~= math.floor(each.tallied_at / SHORT_STEP) then
                write_marks(name, key, each.tallied_at)
            end
            for event, number in pairs(each.events) do
                redis.pcall('HINCRBY', key, event, text_once(number))
            end
        end
    end
end
