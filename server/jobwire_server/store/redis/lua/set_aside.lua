#!lua flags=allow-oom
-- Sets jobs aside whose records cannot be read: FAILED, and readable again.
-- Guard: the record is still the one that was judged.
-- Returns: JSON list of [id, queue] of those set aside.
-- Keeps: what is intact stays; the job stands in one state index; a lease that it ends frees its credit, and its worker
--   is told.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush holder damaged record setting_aside
local done = {}
for _, each in ipairs(ARGS) do
    local id, judged, changes = unpack(each)
    local record, detail, digest = record_of(id)
    if digest == judged then
        done[#done + 1] = cjson.encode({ id, set_aside(id, texts_in(record), texts_in(detail), changes) })
    end
end
local change, told = flush()
return answer(change, told, encoded_list(done))
