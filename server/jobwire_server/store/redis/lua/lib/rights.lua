-- Ends the script with the first of the commands in its arguments that its user may not run on keys and channels of this
-- prefix; before anything else, since an engine's own refusal may not say of what.
local wanted = cjson.decode(ARGV[5])
for at = 3, #wanted do
    if not redis.acl_check_cmd(wanted[at], KEYS[1], KEYS[1], KEYS[1]) then
        return { '0', '', '', cjson.encode({ false, wanted[at] }), '' }
    end
end
