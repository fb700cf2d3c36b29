#!lua flags=allow-oom
-- Records a worker's sign of life, and its session when it opens a stream.
-- Guard: no higher session is stored; a session of 0 is never lower.
-- Returns: JSON, what an operator wants of it; null when the session is lower: then nothing was written.
-- Keeps: what a worker leaves unsaid stays as it said it before.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush
local id, session, said = ARGS[1], ARGS[2], ARGS[3]
local account = worker(id)
if session ~= '0' and is_lower(session, account.session) then
    return answer('', '', 'null')
end
for field, value in pairs(said) do
    account.dirty[field] = value
end
account.dirty.last_beat = NOW_TEXT
if session ~= '0' then
    account.dirty.session = session
end
end_silence(id, account)
local change, told = flush()
return answer(change, told, cjson.encode(account.directive))
