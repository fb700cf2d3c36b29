#!lua flags=allow-oom
-- Completes jobs, the common end of a life: what `move` does with a completion, in fewer steps.
-- Guard: the token, as domain.move.Completion has it; no job comes twice.
-- Returns: JSON list of [outcome, standing or null], or [outcome, null, job or false] where the token guards nothing.
-- Keeps: as move.lua.
--!include call rows changes fields names places outage hints queues workers flush completing
local completions = ARGS
local done = done_before()
local answers, outcomes, removes = {}, {}, false

local function judge(fields, token, operation)
    if not fields then
        return 'gone'
    elseif fields.last_operation == operation then
        return 'ok'
    end
    return fields.state == 'in_progress' and fields.token == token and 'completes' or 'lost'
end

for i, completion in ipairs(completions) do
    local id, result = completion[1], completion[3] and take(completion[3])
    local fields = fields_of(id)
    local outcome = done and done[i] or judge(fields, completion[2], completion[4])
    if outcome == 'completes' then
        outcome = 'ok'
        if complete(id, fields, completion[4], result) then
            removes, fields = true, nil
        end
    end
    outcomes[i] = outcome
    answers[i] = outcome == 'ok' and (fields and '["ok",' .. standing(fields) .. ']' or '["ok",null]')
end
local change, told = flush(#completed > 0)
write_completed()
remember(outcomes, removes and not done)
for i, outcome in ipairs(outcomes) do
    if outcome ~= 'ok' then
        local id = completions[i][1]
        load({ id })
        answers[i] = '["' .. outcome .. '",null,' .. encoded(rows[id]) .. ']'
    end
end
return answer(change, told, encoded_list(answers))
