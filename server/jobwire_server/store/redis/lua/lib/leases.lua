-- What leasing.lua has leased, as it is answered.

-- The jobs of this call as `encoded` has them; what stands beside the records is read in one go.
local function encode_leased()
    local keys = {}
    for i, job in ipairs(leased) do
        keys[i] = TAG .. SPEC .. job.id
    end
    local specs = mget(keys)
    for i, job in ipairs(leased) do
        local detail, result = '', false
        if job.fields and job.fields.beside then
            detail = has_beside(job.fields, 'd') and redis.call('GET', TAG .. DETAIL .. job.id) or ''
            result = has_beside(job.fields, 'r') and redis.call('GET', TAG .. RESULT .. job.id)
        end
        job.encoded = encoded_parts(job.id, job.record, detail, specs[i] or '', result)
    end
end
