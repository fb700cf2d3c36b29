#!/usr/bin/env bash
# A worker: ./worker.sh [HOST:PORT]. Ctrl-C or SIGTERM lets it finish what it holds.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/jobworker.sh"

handle() {
  local job name
  job=$(cat)
  [[ $(jq -r .type <<<"$job") == hello ]] || return 64
  name=$(jq -r '.payload.text // ""' <<<"$job")
  [[ -n $name ]] || { echo NO_NAME >"$LEASE/code"; echo "nobody to greet" >&2; return 65; }
  echo "hello, $name" >/dev/stderr
  printf 'hello, %s' "$name"
}

work
