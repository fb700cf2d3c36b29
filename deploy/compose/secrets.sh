#!/bin/sh
# Makes what the compose files keep secret, in the folder `secrets` beside them: random passwords, and the files that hold them.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
    echo "There are secrets already, in $PWD/secrets: remove them first, if there is no store that goes by them" >&2
    exit 1
fi

random() {
    od -An -N 24 -tx1 /dev/urandom | tr -d ' \n'
}
hashed() {
    printf %s "$1" | if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}
store() {  # NAME SCHEME WHERE
    printf 'store = "%s://jobwire:%s@%s"\n' "$2" "$password" "$3" >"secrets/$1.toml"
}

# The folder is closed; its files are read by users of the containers, who are not the one who runs this.
umask 022
mkdir -m 700 secrets
password=$(random)
engine=$(random)
printf %s "$password" >secrets/password
printf %s "$engine" >secrets/engine
store redis redis valkey:6379/0
store sentinel redis+sentinel 'sentinel-1:26379,sentinel-2:26379,sentinel-3:26379/jobs?replicas=1'
store cluster redis+cluster 'valkey-1:6379,valkey-2:6379,valkey-3:6379,valkey-4:6379,valkey-5:6379,valkey-6:6379?replicas=1'
sed -e "s/^user jobwire on /&#$(hashed "$password") /" -e "s/^user engine on /&#$(hashed "$engine") /" \
    ../redis/users.acl ../redis/engines.acl >secrets/users.acl
for file in valkey.conf sentinel.conf; do
    sed "s/PASSWORD$/$engine/" "$file" >"secrets/$file"
done
echo "Made $PWD/secrets"
