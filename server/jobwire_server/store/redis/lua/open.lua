#!lua flags=allow-oom
-- Makes the store when nothing is there, and says which one is.
-- Guard: the user may run every command of the scripts, on keys and channels of this prefix.
-- Returns: JSON [schema, partitions, create_time, what it is being filled from or false], as found; or [false, the first
--   command that the guard refuses].
-- Keeps: `:meta` is written once, by the first server.
--!include rights call
local function found()
    return redis.call('HMGET', TAG .. META, 'schema', 'partitions', 'create_time', 'filled_from')
end
if not found()[1] then
    redis.call('HSET', TAG .. META, 'schema', ARGS[1], 'partitions', ARGS[2], 'create_time', NOW_TEXT)
end
return { NOW_TEXT, '', '', cjson.encode(found()), '' }
