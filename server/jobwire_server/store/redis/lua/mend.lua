#!lua flags=allow-oom
-- Puts jobs where their records say that they stand, and makes what lists queues and workers agree with what is there.
-- Guard: a job's record is still the one by which its places were judged; of a job that was not there it still is not.
-- Returns: JSON list, for each job: 'mended', 'moved' where the guard says so, or 'left' where a key is of another type.
-- Keeps: every record; what is in its right place already. Sent again, it finds nothing to do.
--!include call names hints queues outage workers indices relisting
local function is_as_judged(id, digest)
    if not digest then
        return redis.call('EXISTS', TAG .. JOB .. id) == 0
    end
    local record = redis.pcall('GET', TAG .. JOB .. id)
    return type(record) == 'string' and redis.sha1hex(record) == digest
end

-- The queue and the worker that a record names are there.
local function keep_known(name, queue_time, worker_id)
    list(QUEUES, name)
    local entered, entered_at = queue(name), tonumber(queue_time or '0')
    if entered_at > NOW then
        entered_at = 0 -- no queue_time comes after that of a queue: one that is wrong must not be spread
    end
    if entered.is_new or entered_at > entered.last then
        entered.last, entered.changed = math.max(entered.last, entered_at), true
    end
    if worker_id then
        list(WORKERS, worker_id)
        worker(worker_id)
    end
end

-- `right`: key, score, …; `wrong`: keys.
local function put_right(id, is_there, right, wrong, name, queue_time, worker_id)
    for at = 1, #right, 2 do
        redis.call('ZSCORE', right[at], id) -- fails where it is no index, before anything is to be written
    end
    for _, key in ipairs(wrong) do
        redis.call('ZSCORE', key, id)
    end
    if is_there then
        keep_known(name, queue_time, worker_id)
    else
        for _, kind in ipairs({ SPEC, RESULT, DETAIL }) do
            removed[#removed + 1] = TAG .. kind .. id
        end
    end
    for at = 1, #right, 2 do
        place(right[at], id, right[at + 1])
    end
    for _, key in ipairs(wrong) do
        place(key, id, false)
    end
end

local jobs, queue_sizes, worker_sizes = unpack(ARGS)
local done = {}
for i, asked in ipairs(jobs) do
    local size, digest, right, wrong, name, queue_time, worker_id = unpack(asked)
    local id = take(size)
    if is_as_judged(id, digest) then
        done[i] = pcall(put_right, id, digest and true, right, wrong, name, queue_time, worker_id) and 'mended' or 'left'
    else
        done[i] = 'moved'
    end
end
for _, size in ipairs(queue_sizes) do
    pcall(mend_queue, take(size))
end
for _, size in ipairs(worker_sizes) do
    pcall(mend_worker, take(size))
end
write_places()
write_queues()
write_workers()
write_lists()
return { NOW_TEXT, '', '', cjson.encode(done), '' }
