#!/usr/bin/env bash
# What tests/polyglot drives: it makes the calls it is told on stdin, or runs the example's worker, and prints what it sees
# as JSON, a line each.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/jobworker.sh"

tell() { jq -nc "$@"; }

# --- calls

call_told() {
  local method=JobService/$1 answer
  [[ $1 != Heartbeat && $1 != DrainWorker ]] || method=WorkerService/$1
  if answer=$(grpcurl -plaintext -format-error -d "$2" "$TARGET" "jobwire.v1.$method" 2>&1); then
    if [[ $1 == ClaimJob ]]; then
      jq -sc '{response: .}' <<<"$answer"
    else
      jq -c '{response: .}' <<<"$answer"
    fi
  else
    tell --argjson code "$(jq .code <<<"$answer" 2>/dev/null || echo 14)" --arg reason "$(reason <<<"$answer")" '{$code, $reason}'
  fi
}

# --- work

handle() {
  local job
  job=$(cat)
  tell --argjson job "$job" '{event: "started", job: $job.id, attempt: $job.attempt, fence: $job.fence}' >&5
  case $(jq -r .type <<<"$job") in
    echo)
      jq -jr '.payload.content_type' <<<"$job" >"$LEASE/content_type"
      jq -j '.payload.text // empty' <<<"$job"
      jq -j '.payload.data // empty' <<<"$job" | base64 -d
      ;;
    flaky) (($(jq .attempt <<<"$job") > 1)) || { echo "told to fail" >&2; return 1; } ;;
    doomed) echo DOOMED >"$LEASE/code"; echo "told to fail for good" >&2; return 65 ;;
    hold) report 0.5 "half way"; hold ;;
    mute) hold ;;
    *) return 64 ;;
  esac
}

hold() {
  trap 'tell --arg job "$JOB_ID" --arg cause "$(cat "$LEASE/cause")" "{event: \"stopped\", \$job, \$cause}" >&5; exit 1' TERM
  tell --arg job "$JOB_ID" '{event: "holding", $job}' >&5
  until [[ -e $FINISH ]]; do sleep 0.05; done
}

draining() { tell '{event: "draining"}' >&5; }

settled() {
  tell --argjson update "$1" --arg reason "$2" \
    '{event: "settled", job: $update.job_id, verb: ($update | keys - ["job_id", "token"])[0], $reason}' >&5
}

while read -r line; do
  if told=$(jq -ce '.watch // empty' <<<"$line"); then
    grpcurl -plaintext -d "$told" "$TARGET" jobwire.v1.JobService/WatchJobs | jq --unbuffered -c .
  elif told=$(jq -ce '.work // empty' <<<"$line"); then
    WORKER=$(jq -r .id <<<"$told") QUEUES=$(jq -c .queues <<<"$told") CONCURRENCY=$(jq .concurrency <<<"$told")
    LEASE_SECONDS=$(jq .leaseSeconds <<<"$told") GRACE_SECONDS=$(jq .graceSeconds <<<"$told")
    exec 5>&1 6<&0 # a handler's own stdout is its result
    FINISH=$(mktemp -u)
    { read -r _ <&6 && touch "$FINISH"; } & # the next line is the word to finish
    if work; then
      tell '{event: "ended", reason: ""}'
    else
      tell --arg reason "$ended" '{event: "ended", $reason}'
    fi
    rm -f "$FINISH"
    exit
  else
    call_told "$(jq -r .call <<<"$line")" "$(jq -c .request <<<"$line")"
  fi
done
