#!/bin/sh
# Starts what writes into its own configuration: a failover turns replica into primary there, and must outlive a restart.
#   start.sh FILE LINE OPTION...     FILE of the secrets and LINE are how it begins, the first time; OPTIONs are for each start
set -eu
file=$1
if [ ! -e "$file" ]; then
    { cat "/run/secrets/$file"; echo "$2"; } >"$file.new"
    mv "$file.new" "$file"
fi
shift 2
exec valkey-server "$file" "$@"
