#!lua flags=allow-oom
-- Judges each Move's guard and applies it, in order.
-- Guard: domain.guard.judge: operation, token, version, create_time, unacknowledged, overdue, as far as the Move sets them.
-- Returns: JSON list of [outcome, standing or null], or [outcome, null, job or false] when it was refused.
-- Keeps: a repeated operation writes nothing; a job stands in one state index; whatever ends a lease frees its credit;
--   an end of which somebody is to be told brings the job that does, or is stale.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush holder moving
--!include plain existing creating
local done = done_before()
local answers, outcomes, seen, ids, matters = {}, {}, {}, {}, false

local function judge(fields, token, version, create_time, shape, brings_word)
    if token and (fields.state ~= 'in_progress' or fields.token ~= token) then
        return 'lost'
    end
    if version and (fields.version or '1') ~= version or create_time and fields.create_time ~= create_time then
        return 'stale'
    end
    if shape.unacknowledged and fields.acknowledged then
        return 'stale'
    end
    if shape.overdue and not is_overdue(fields) then
        return 'stale'
    end
    return wants_word(fields, shape.to) and not brings_word and 'stale' or 'ok'
end

local shapes, moves, word_shapes = ARGS[1], ARGS[2], ARGS[3]
for i, move in ipairs(moves) do
    local id = move[2]
    ids[i] = id
    -- Of two Moves of one job only the second is found in the row, and of one that removed it neither. One without a
    -- token may be followed by anybody's before it comes again; it must not be taken for a new wish then.
    matters = matters or seen[id] or not move[4]
    seen[id] = true
end
load(ids)
for i, move in ipairs(moves) do
    local number, id, operation, token, version, create_time, submission_size, result_size, word = unpack(move)
    local row, outcome, shape = rows[id], 'gone', shapes[number]
    local submission = submission_size and take(submission_size)
    local result = result_size and take(result_size)
    local spec = word and take(word[3])
    if done then
        outcome = done[i]
    elseif row and operation ~= '' and row.fields.last_operation == operation then
        outcome = 'ok'
    elseif row then
        outcome = judge(row.fields, token, version, create_time, shape, word)
        if outcome == 'ok' then
            if word and wants_word(row.fields, shape.to) then
                add(key_of(word[1]), word, word_shapes[word[2]], spec)
            end
            apply(row, shape, operation, submission, result)
            matters = matters or not rows[id]
        end
    end
    outcomes[i] = outcome
    row = rows[id]
    if outcome == 'ok' then
        answers[i] = row and standing('["ok",', row.fields) or '["ok",null]'
    else
        answers[i] = '["' .. outcome .. '",null,' .. encoded(row) .. ']'
    end
end
tell_created()
local change, told = flush()
remember(outcomes, matters and not done)
return answer(change, told, encoded_list(answers))
