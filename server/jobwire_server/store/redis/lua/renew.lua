#!lua flags=allow-oom
-- Extends each lease that is still held under its token; the first renewal acknowledges the delivery.
-- Guard: IN_PROGRESS under this token.
-- Returns: JSON list of ["ok", remaining, cancel_reason or false, standing], without the standing in a brief answer, or
--   [outcome].
-- Keeps: no renewal passes limit_time; a mere renewal leaves the version alone.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush
local function acknowledge(row)
    local fields = row.fields
    fields.acknowledged, fields.return_count, fields.start_time = '1', nil, fields.start_time or fields.claim_time
    if fields.execution_timeout then
        -- A cancel that came before the acknowledgment may have set a sooner limit.
        local limit_time = NOW + tonumber(fields.execution_timeout)
        fields.limit_time = text(math.min(limit_time, tonumber(fields.limit_time or limit_time)))
    end
end

-- `progress` is JSON that lacks its time: only the store knows it.
local function renew(row, progress)
    local fields = row.fields
    if not fields.acknowledged or progress then
        row.has_changed = true -- a mere renewal is no change
        fields.version, fields.update_time = text((fields.version or 1) + 1), NOW_TEXT
    end
    if not fields.acknowledged then
        acknowledge(row)
    end
    if progress then
        set(row, 'progress', progress .. NOW_TEXT .. ']')
    end
    local ends = NOW + tonumber(fields.lease_duration or '0')
    ends = math.min(ends, tonumber(fields.limit_time or ends))
    fields.lease_expire_time, fields.score, row.rewrites = nil, text(ends), true
    return math.max(0, ends - NOW)
end

local brief, renewals, ids, answers, holders = ARGS[1], ARGS[2], {}, {}, {}
for i, renewal in ipairs(renewals) do
    ids[i] = renewal[1]
end
load(ids)
for i, renewal in ipairs(renewals) do
    local row = rows[ids[i]]
    if not row then
        answers[i] = '["gone"]'
    elseif row.fields.state == 'in_progress' and row.fields.token == renewal[2] then
        local remaining, fields = text(renew(row, renewal[3])), row.fields
        local reason = fields.cancel_requested and cjson.encode(row.detail.cancel_reason or '') or 'false'
        holders[fields.worker_id] = true
        local renewed = '["ok",' .. remaining .. ',' .. reason
        answers[i] = brief and renewed .. ']' or standing(renewed .. ',', fields)
    else
        answers[i] = '["lost"]'
    end
end
for _, row in pairs(rows) do
    if row and row.rewrites then
        local running = list_of(entering, index(row.fields.queue, 'in_progress'))
        running[#running + 1], running[#running + 2] = row.fields.score, row.id
    end
end
for worker_id in pairs(holders) do
    acknowledged(worker_id)
end
local change, told = flush()
return answer(change, told, encoded_list(answers))
