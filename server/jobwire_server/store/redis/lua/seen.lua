#!lua flags=allow-oom
-- Records that these workers have a stream open.
-- Guard: only of those that are known.
-- Returns: JSON null.
-- Keeps: beats and silence: nobody knows whether they read.
--!include call names
for _, id in ipairs(ARGS) do
    if redis.call('EXISTS', TAG .. WORKER .. id) == 1 then
        redis.call('HSET', TAG .. WORKER .. id, 'last_seen', NOW_TEXT)
    end
end
return { NOW_TEXT, '', '', 'null', '' }
