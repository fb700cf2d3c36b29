-- A job's record as it is stored, whatever that is.

-- The fields of the hash in turn with their values, the detail (nil = none), and a digest of both; nil = no such hash.
local function record_of(id)
    local flat = redis.pcall('HGETALL', TAG .. JOB .. id)
    if flat.err or #flat == 0 then
        return nil
    end
    local detail = redis.pcall('GET', TAG .. DETAIL .. id)
    if type(detail) ~= 'string' then
        detail = nil
    end
    return flat, detail, redis.sha1hex(table.concat(flat, '\0') .. '\0' .. (detail or ''))
end
