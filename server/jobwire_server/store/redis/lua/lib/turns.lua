-- Whose turn it is to sweep: every server tries, and one is enough.

-- Another server has done it a moment ago and left nothing over.
local function is_done(verb, server)
    local by, at = string.match(redis.call('HGET', TAG .. SWEPT, verb) or '', '^(%x+) (%d+)$')
    local ago = by and by ~= server and NOW - tonumber(at)
    return ago and ago >= 0 and ago < SWEPT_JUST_NOW
end

local function note_done(verb, server, has_rest)
    if has_rest then
        redis.call('HDEL', TAG .. SWEPT, verb) -- whoever comes next helps
    else
        redis.call('HSET', TAG .. SWEPT, verb, server .. ' ' .. NOW_TEXT)
    end
end
