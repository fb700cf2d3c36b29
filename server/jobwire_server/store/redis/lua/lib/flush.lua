-- The end of a call that changes jobs: everything is written, then told.
local strings, gone = {}, {}

local function write_string(key, value)
    strings[#strings + 1], strings[#strings + 2] = key, value
end

local function write_beside(row)
    local id, beside = row.id, ''
    if row.new_spec then
        write_string(TAG .. SPEC .. id, row.spec)
    end
    if row.rewrites_detail then
        if next(row.detail) then
            write_string(TAG .. DETAIL .. id, detail_of(row))
        else
            gone[#gone + 1] = TAG .. DETAIL .. id
        end
    end
    if next(row.detail) then
        beside = 'd'
    end
    local has_result = has_beside(row.fields, 'r')
    if row.new_result then
        if row.result then
            write_string(TAG .. RESULT .. id, row.result)
        elseif has_result then
            gone[#gone + 1] = TAG .. RESULT .. id
        end
        has_result = row.result
    end
    if has_result then
        beside = beside .. 'r'
    end
    set(row, 'beside', beside ~= '' and beside)
end

local function write_row(row)
    if row.new_spec or row.new_result or row.rewrites_detail then
        write_beside(row)
    end
    if row.rewrites then
        write_string(key_of(row.id), cjson.encode(row.fields))
    end
end

-- Writes all and answers (change, hints) as `ring` does. `has_changed`: jobs were, beside those in `rows`.
local function flush(has_changed)
    if is_watched() then
        tell_written(strings)
    end
    write_places()
    has_changed = has_changed or #removed > 0
    for _, row in pairs(rows) do
        if row then
            write_row(row)
            has_changed = has_changed or row.has_changed
            if row.has_changed and watched then
                tell_row(row)
            end
        end
    end
    call_with('MSET', nil, strings, 2)
    call_with('UNLINK', nil, gone, 1)
    write_queues()
    write_tallies()
    write_workers()
    tell_freed_slots()
    return ring(has_changed)
end

-- The answer of every script: time, change, hints, JSON, large parts.
local function answer(change, told, json)
    return { NOW_TEXT, change, told, json, table.concat(blobs) }
end
