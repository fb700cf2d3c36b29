#!/bin/sh
# Joins engines to a Cluster, and leaves alone those that are in one.
#   cluster.sh ADDRESS...     the first three become primaries, the others replicas
# All keys of a store have one slot, so the replicas belong to the primary that has it.
set -eu
REDISCLI_AUTH=$(cat /run/secrets/engine)
export REDISCLI_AUTH

ask() {  # ADDRESS COMMAND...
    valkey-cli --user engine -h "$@"
}
is_alone() {
    ask "$1" cluster info | grep -q '^cluster_known_nodes:1[^0-9]*$'
}

first=$1
if is_alone "$first"; then
    valkey-cli --user engine --cluster create "$1:6379" "$2:6379" "$3:6379" --cluster-yes
fi
slot=$(ask "$first" cluster keyslot '{jw:0}')
primary=$(ask "$first" cluster nodes | awk -v slot="$slot" \
    '{ for (i = 9; i <= NF; i++) { split($i, range, "-"); if (range[1] <= slot && slot <= range[2]) print $1 } }')
shift 3
for replica; do
    if is_alone "$replica"; then
        valkey-cli --user engine --cluster add-node "$replica:6379" "$first:6379" --cluster-slave --cluster-master-id "$primary"
    fi
done
