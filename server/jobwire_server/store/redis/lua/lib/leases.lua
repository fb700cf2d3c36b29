-- What leasing.lua has leased: written, and answered.
-- After the flush, which has looked whether the indices can be written.
local function write_leased()
    for _, job in ipairs(leased) do
        local key, own, said = TAG .. JOB .. job.id, job.own, job.terms.said
        job.as_text = table.concat(own, '\0') .. '\0' .. job.terms.as_text
        local at = #own
        for i = 1, #said do
            own[at + i] = said[i]
        end
        redis.call('HSET', key, unpack(own))
        if job.terms.is_acknowledged and job.fields.return_count then
            redis.call('HDEL', key, 'return_count')
            job.as_text = job.as_text .. '\0return_count\0'
        end
    end
end

-- The jobs of this call as `encoded` has them; what stands beside the hashes is read in one go.
local function encode_leased()
    local keys = {}
    for i, job in ipairs(leased) do
        keys[i] = TAG .. SPEC .. job.id
    end
    local specs = mget(keys)
    for i, job in ipairs(leased) do
        local beside, detail, result = job.fields.beside, '', false
        if job.is_cleared then
            job.fields, job.stored = fields_of(job.id)
            beside = job.fields.beside
        end
        if beside then
            detail = redis.call('GET', TAG .. DETAIL .. job.id) or ''
            result = string.find(beside, 'r', 1, true) and redis.call('GET', TAG .. RESULT .. job.id)
        end
        local fields = table.concat(job.stored, '\0') .. '\0' .. job.as_text
        job.encoded = encoded_parts(job.id, fields, detail, specs[i] or '', result)
    end
end
