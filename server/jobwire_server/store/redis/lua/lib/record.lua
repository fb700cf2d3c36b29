-- A job's record as it is stored, whatever that is.

-- The record, the detail ('' = none), and a digest of both; nil = no such record.
local function record_of(id)
    local record = redis.pcall('GET', TAG .. JOB .. id)
    if type(record) ~= 'string' then
        return nil
    end
    local detail = text_of(redis.pcall('GET', TAG .. DETAIL .. id))
    return record, detail, redis.sha1hex(record .. '\0' .. detail)
end
