#!lua flags=no-writes
-- Reads the names of all queues, or of all workers.
-- Guard: none.
-- Returns: JSON true; the names as bytes, a line each, in no order: sorting very many here would hold up everybody.
-- Keeps: everything.
--!include call
local key = ARGS == 'queues' and QUEUES or WORKERS
return { NOW_TEXT, '', '', 'true', table.concat(redis.call('SMEMBERS', TAG .. key), '\n') }
