#!lua flags=allow-oom
-- Makes the store when nothing is there, and says which one is.
-- Guard: none.
-- Returns: JSON [schema, partitions, create_time], as found.
-- Keeps: `:meta` is written once, by the first server.
--!include call
local function found()
    return redis.call('HMGET', TAG .. META, 'schema', 'partitions', 'create_time')
end
if not found()[1] then
    redis.call('HSET', TAG .. META, 'schema', ARGS[1], 'partitions', ARGS[2], 'create_time', NOW_TEXT)
end
return { NOW_TEXT, '', '', cjson.encode(found()), '' }
