-- Sorted sets of job ids as this call changes them, written at its end.
local places = {} -- key -> id -> score, or false
local entering, leaving = {}, {} -- key -> score, id, …; id, …
local removed = {} -- keys that go

-- The job stands in that sorted set with this score (text); false = not any more.
local function place(key, id, score)
    local members = places[key]
    if not members then
        members = {}
        places[key] = members
    end
    members[id] = score
end

-- The list of those that enter that sorted set (score, id, …), or leave it (id, …): for whoever names a job there only
-- once in a call, at a third of what `place` costs.
local function list_of(lists, key)
    local list = lists[key]
    if not list then
        list = {}
        lists[key] = list
    end
    return list
end

local function write_places()
    for key, members in pairs(places) do
        local here, gone = list_of(entering, key), list_of(leaving, key)
        for id, score in pairs(members) do
            if score then
                here[#here + 1] = score
                here[#here + 1] = id
            else
                gone[#gone + 1] = id
            end
        end
    end
    local keys = {}
    for _, lists in ipairs({ leaving, entering }) do
        for key in pairs(lists) do
            keys[#keys + 1] = key
        end
    end
    -- Whatever is wrong with a key should show before the first write: there is no roll-back.
    call_with('EXISTS', nil, keys, 1)
    for key, list in pairs(leaving) do
        call_with('ZREM', key, list, 1)
    end
    for key, list in pairs(entering) do
        call_with('ZADD', key, list, 2)
    end
    call_with('UNLINK', nil, removed, 1)
end
