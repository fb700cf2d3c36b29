#!lua flags=no-writes
-- Reads a few fields of many jobs: those that say where they stand.
-- Guard: none.
-- Returns: the values in the blob, job by job, split by NUL; an empty one where there is none.
-- Keeps: everything. A job that is not there, or is damaged, has no value.
--!include call damaged
local names, sizes, values = ARGS[1], ARGS[2], {}
for _, size in ipairs(sizes) do
    local fields = texts_in(text_of(redis.pcall('GET', TAG .. JOB .. take(size))))
    for i = 1, #names do
        values[#values + 1] = fields[names[i]] or ''
    end
end
return { NOW_TEXT, '', '', '', table.concat(values, '\0') }
