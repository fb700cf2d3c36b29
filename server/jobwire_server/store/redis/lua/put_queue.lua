#!lua flags=allow-oom
-- Changes settings of a queue, or makes it.
-- Guard: its revision, where one is given.
-- Returns: JSON [outcome, queue or false].
-- Keeps: what has its value already is no change; sent again, it answers as it did.
--!include call rows changes fields names watched hints queues registry
local name, changes, revision, may_make = unpack(ARGS)
local key = TAG .. QUEUE .. name
local done = done_before()
local change, told = '', ''

local function judged(is_there, stored)
    if not is_there and not may_make then
        return 'gone'
    elseif revision and revision ~= (stored or '0') then
        return is_there and 'stale' or 'gone'
    end
    return 'ok'
end

local function put(is_there, stored)
    local dirty = {}
    for field, value in pairs(changes) do
        if (redis.call('HGET', key, field) or false) ~= value then
            dirty[field] = value
        end
    end
    if next(dirty) then
        dirty.revision, dirty.update_time = text((stored or 0) + 1), NOW_TEXT
    end
    local before = claimable(name)
    if not is_there then
        dirty.create_time, dirty.last_queue_time = NOW_TEXT, '0'
        redis.call('SADD', TAG .. QUEUES, name)
    end
    write_hash(key, dirty)
    queues[name] = nil -- read anew
    local more = claimable(name) - before
    if more > 0 then
        tell_count('queued', name, more)
    end
    change, told = ring(false)
    return next(dirty) ~= nil
end

local outcome = done and done[1]
if not outcome then
    local got = redis.call('HMGET', key, 'last_queue_time', 'revision')
    local is_there = got[1] and true
    outcome = judged(is_there, got[2])
    remember({ outcome }, outcome == 'ok' and put(is_there, got[2]))
end
local record = redis.call('EXISTS', key) == 1 and queue_record(name) or 'false'
return { NOW_TEXT, change, told, encoded_list({ cjson.encode(outcome), record }), '' }
