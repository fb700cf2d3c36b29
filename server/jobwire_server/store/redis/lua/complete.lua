#!lua flags=allow-oom
-- Completes jobs, the common end of a life: what `move` does with a completion, in fewer steps.
-- Guard: the token, as domain.move.Completion has it; no job comes twice.
-- Returns: JSON list of [outcome, standing or null], 1 for ok in a brief answer, or [outcome, null, job or false] where
--   the token guards nothing.
-- Keeps: as move.lua.
--!include call rows changes fields names indices watched places outage hints queues tallies workers flush completing
local brief, completions = ARGS[1], ARGS[2]
local done = done_before()
local answers, outcomes, ids, has_completed, removes = {}, {}, {}, false, false

local function judge(fields, token, operation)
    if not fields then
        return 'gone'
    elseif fields.last_operation == operation then
        return 'ok'
    end
    if fields.state ~= 'in_progress' or fields.token ~= token then
        return 'lost'
    end
    return wants_word(fields, 'completed') and 'stale' or 'completes'
end

for i, completion in ipairs(completions) do
    ids[i] = completion[1]
end
local records, keys = records_of(ids)
for i, completion in ipairs(completions) do
    local id, result = ids[i], completion[3] -- a text, which stands in the record, or the size of what stands beside it
    local large = type(result) == 'number' and take(result)
    local fields = records[i] and fields_in(records[i])
    local outcome = done and done[i] or judge(fields, completion[2], completion[4])
    if outcome == 'completes' then
        outcome, has_completed = 'ok', true
        complete(id, keys[i], fields, completion[4], not large and result, large)
        if rows[id] == false then
            removes, fields = true, nil
        end
    end
    outcomes[i] = outcome
    answers[i] = outcome == 'ok' and (brief and '1' or fields and standing('["ok",', fields) or '["ok",null]')
end
tell_completed()
local change, told = flush(has_completed)
remember(outcomes, removes and not done)
for i, outcome in ipairs(outcomes) do
    if outcome ~= 'ok' then
        load({ ids[i] })
        answers[i] = '["' .. outcome .. '",null,' .. encoded(rows[ids[i]]) .. ']'
    end
end
return answer(change, told, encoded_list(answers))
