#!/bin/sh
# Makes what redis.yml keeps secret, in the folder `secrets` beside it: a random password, and the files that hold it.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
    echo "There are secrets already, in $PWD/secrets: remove them first, if there is no store that goes by them" >&2
    exit 1
fi

hashed() {
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

# The folder is closed; its files are read by users of the containers, who are not the one who runs this.
umask 022
mkdir -m 700 secrets
password=$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')
printf %s "$password" >secrets/password
printf 'store = "redis://jobwire:%s@valkey:6379/0"\n' "$password" >secrets/redis.toml
sed "s/^user jobwire on /&#$(printf %s "$password" | hashed) /" ../redis/users.acl >secrets/users.acl
echo "Made $PWD/secrets"
