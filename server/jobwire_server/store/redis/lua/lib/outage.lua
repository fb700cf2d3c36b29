-- When the store last came back from an outage (0 = never): nobody swept for longer than a moment, or time went back.
local OUTAGE_GAP = tonumber(ARGV[2])
local swept

local function look_at_sweeps()
    if not swept then
        local got = redis.call('HMGET', TAG .. SWEPT, 'swept_at', 'recovered_at')
        local last = tonumber(got[1] or NOW_TEXT)
        swept = { recovered_at = tonumber(got[2] or '0') }
        if OUTAGE_GAP and (NOW - last > OUTAGE_GAP or NOW < last) then
            swept.is_back = true
            swept.recovered_at = NOW
        end
    end
    return swept
end

-- A sweep that has not noticed yet would; nothing may be reaped in the meantime.
local function recovered_at()
    return look_at_sweeps().recovered_at
end

-- This call is a sweep: the memory of outages.
local function note_sweep()
    if look_at_sweeps().is_back then
        redis.call('HSET', TAG .. SWEPT, 'swept_at', NOW_TEXT, 'recovered_at', NOW_TEXT)
    else
        redis.call('HSET', TAG .. SWEPT, 'swept_at', NOW_TEXT)
    end
end

-- domain.guard.is_overdue: past its deadline, and its worker had time to be heard since the store came back.
local function is_overdue(fields)
    local pause = tonumber(fields.lease_duration or '0')
    if not fields.acknowledged and fields.claim_time then
        pause = lease_end(fields) - tonumber(fields.claim_time)
    end
    return tonumber(fields.score) <= NOW and recovered_at() + pause <= NOW
end
