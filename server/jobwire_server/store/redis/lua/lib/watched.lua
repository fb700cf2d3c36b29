-- What those who watch jobs are told. Nothing is done for it while nobody watches.
local changed, born, rewritten, departed, last, last_blobs = {}, {}, {}, {}, {}, {}

local watched
local function is_watched()
    if watched == nil then
        watched = redis.call('EXISTS', TAG .. WATCHED) == 1
    end
    return watched
end

-- A new job of this shape (creating.lua): what tells most watches that it is none of theirs.
local function tell_born(id, shape)
    if not shape.born then
        shape.born = {}
        born[#born + 1] = { shape[2], shape[6] or '', shape.born }
    end
    shape.born[#shape.born + 1] = id
end

-- A job goes: what a filter can still ask of it, and, where it goes at its end, the whole of it.
local function tell_gone(id, fields, row)
    departed[#departed + 1] = { id, fields.queue, fields.type or '', fields.user_id or '', fields.create_time or '0' }
    if row then
        row.rewrites = true
        last[#last + 1] = encoded(row)
        for at = #blobs - 3, #blobs do
            last_blobs[#last_blobs + 1], blobs[at] = blobs[at], nil
        end
    end
end

-- Of all that is to be written, the jobs' own records; before those that only a renewal writes are added to it.
local function tell_written(list)
    local begins = key_of('')
    for at = 1, #list, 2 do
        if string.sub(list[at], 1, #begins) == begins then
            changed[#changed + 1] = string.sub(list[at], #begins + 1)
        end
    end
end

local function tell_row(row)
    changed[#changed + 1] = row.id
    if row.new_spec then
        rewritten[#rewritten + 1] = row.id
    end
end

local function as_list(list)
    return #list > 0 and cjson.encode(list) or '[]'
end

-- Each change has its message, whatever it was: a missing number is a gap.
local function tell_watchers(change)
    local told = as_list(changed) .. ',' .. as_list(born) .. ',' .. as_list(rewritten) .. ',' .. as_list(departed) .. ',' .. encoded_list(last)
    redis.call('PUBLISH', TAG .. CHANGES, change .. '\n[' .. told .. ']\n' .. table.concat(last_blobs))
end
