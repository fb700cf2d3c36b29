-- What every script begins with: its arguments, the time, numbers as text.
local ARGS = cjson.decode(ARGV[5])
local CALL_ID, IS_REPEAT, BLOB = ARGV[3], ARGV[4] == '1', ARGV[6]

-- Where replicas must have it: WAIT is about what its connection wrote last, and what this call finds done another may
-- have written. Behind a write of its own, no call is acknowledged on the strength of what could still be lost.
if ARGV[7] then
    redis.call('SET', TAG .. AWAITED, CALL_ID)
end

-- tostring would round to 14 digits, and microseconds have 16.
local function text_once(number)
    assert(number > -2 ^ 53 and number < 2 ^ 53, 'damaged') -- before anything is written; nan and inf too
    return string.format('%d', number)
end

-- The same for a number that comes many times in a call, as most do.
local texts = {}
local function text(number)
    texts[number] = texts[number] or text_once(number)
    return texts[number]
end

-- A stored number as a score, to the last digit; a damaged one must fail before anything is written.
local function as_score(stored)
    local number = tonumber(stored)
    assert(number and number == number, 'damaged')
    return stored
end

local now_text = ARGV[1]
if now_text == '' then
    local time = redis.call('TIME')
    now_text = time[1] .. string.sub('000000' .. time[2], -6)
end
local NOW_TEXT, NOW = now_text, tonumber(now_text)

-- Redis takes some thousand arguments from Lua at most; `step` keeps pairs and triples together.
local function call_with(command, key, list, step)
    local bite = 900 - 900 % step
    for first = 1, #list, bite do
        local last = math.min(first + bite - 1, #list)
        if key then
            redis.call(command, key, unpack(list, first, last))
        else
            redis.call(command, unpack(list, first, last))
        end
    end
end

local blob_at = 1

-- The next `size` bytes of what came beside the JSON.
local function take(size)
    blob_at = blob_at + size
    return string.sub(BLOB, blob_at - size, blob_at - 1)
end

-- What this very call did when it was sent before and its answer was lost; nil when it never came, or did nothing.
local function done_before()
    local done = redis.call('GET', TAG .. CALL .. CALL_ID)
    return done and cjson.decode(done)
end

-- A repeat says so even when it did nothing: the first sending may still be on its way.
local function remember(done, matters)
    if matters or IS_REPEAT then
        redis.call('SET', TAG .. CALL .. CALL_ID, cjson.encode(done), 'PX', RESENT_WITHIN)
    end
end
