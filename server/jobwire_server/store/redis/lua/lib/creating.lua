-- Adding one job.
local waiting = {} -- queue name -> how many are QUEUED, those of this call included

local function position(name, state)
    if state ~= 'queued' then
        return 0
    end
    if not waiting[name] then
        waiting[name] = redis.call('ZCARD', index(name, 'queued'))
    end
    return waiting[name]
end

-- Answers what the caller cannot know: [outcome, id, position, state, score, queue_time].
local function add(new, submission)
    local id, fields, put = new.id, new, new.put
    local name, due = fields.queue, fields.schedule_time
    if due and tonumber(due) > NOW then
        fields.state, fields.score = 'scheduled', due
        queue(name).changed = true
    else
        waiting[name] = position(name, 'queued') + 1
        fields.state = 'queued'
        fields.queue_time, fields.score = enter(name, fields)
        put[#put + 1], put[#put + 2] = 'queue_time', fields.queue_time
        tell_count('queued', name, 1)
    end
    put[#put + 1], put[#put + 2] = 'state', fields.state
    put[#put + 1], put[#put + 2] = 'score', fields.score
    put[#put + 1], put[#put + 2] = 'create_time', NOW_TEXT
    rows[id] = { id = id, fields = fields, stored = {}, put = put, has_changed = true, detail = false, result = false,
        spec = submission, new_spec = submission ~= '' }
    placed(rows[id], false, false)
    if fields.user_id then
        place(TAG .. USER .. redis.sha1hex(fields.user_id), id, NOW_TEXT)
    end
    return { 'created', id, position(name, fields.state), fields.state, fields.score, fields.queue_time }
end
