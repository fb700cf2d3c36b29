#!lua flags=allow-oom
-- Notes what an operator wants of a worker, and tells its streams.
-- Guard: the worker is known.
-- Returns: JSON false when it is not: then nothing was written; else true.
-- Keeps: the same again rings no bell.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush
local id, directive = ARGS[1], ARGS[2]
local account = worker(id)
if account.is_new then
    return answer('', '', 'false')
end
if account.directive ~= directive then
    account.dirty.directive = directive ~= 'none' and directive
    hints.directives = { [id] = directive }
end
local change, told = flush()
return answer(change, told, 'true')
