-- What this call means to those who wait; parts are made when they are needed, since cjson knows no empty list.
local hints = {}

local function tell_count(part, name, number)
    local counts = hints[part] or {}
    hints[part] = counts
    counts[name] = (counts[name] or 0) + number
end

local function tell_worker(part, fields, reason)
    local notices = hints[part] or {}
    hints[part] = notices
    notices[#notices + 1] = { fields.worker_id, fields.id, fields.fence, reason }
end

-- false = the default, which is not stored.
local function write_hash(key, dirty)
    local put, drop = {}, {}
    for field, value in pairs(dirty) do
        if value then
            put[#put + 1] = field
            put[#put + 1] = value
        else
            drop[#drop + 1] = field
        end
    end
    if #put > 0 then
        redis.call('HSET', key, unpack(put))
    end
    if #drop > 0 then
        redis.call('HDEL', key, unpack(drop))
    end
end

-- Numbers the change and rings; answers both for whoever called, who need not wait for the bell.
local function ring(has_changed)
    local told = next(hints) and cjson.encode(hints) or ''
    if told == '' and not has_changed then
        return '', ''
    end
    local change = text(redis.call('INCR', TAG .. CHANGE))
    if told ~= '' then
        redis.call('PUBLISH', TAG .. HINTS, change .. ' ' .. told)
    end
    if is_watched() then
        tell_watchers(change)
    end
    return change, told
end
