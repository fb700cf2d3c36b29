#!/usr/bin/env bash
# A producer: ./producer.sh [HOST:PORT]. Makes a job for the worker beside it, and waits for what comes of it.
set -euo pipefail
TARGET=${1:-127.0.0.1:7272}

call() { grpcurl -plaintext -format-error -max-time 40 -d "$2" "$TARGET" "jobwire.v1.JobService/$1"; }

# Repeats a call whose outcome is unknown. For those that are safe to repeat: creates with an id or a request id, reads.
repeat() {
  local answer
  for _ in {1..30}; do
    if answer=$(call "$@" 2>&1); then
      echo "$answer"
      return
    fi
    case $(jq -r .code <<<"$answer" 2>/dev/null) in
      '' | 4 | 14) sleep 1 ;; # nobody listens, DEADLINE_EXCEEDED, UNAVAILABLE
      *) break ;;
    esac
  done
  echo "$1 failed: $(jq -r '.message, (.details[]? | select(.domain == "jobwire").reason)' <<<"$answer")" >&2
  return 1
}

request_id=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen) # makes it safe to send this again
made=$(repeat CreateJob '{"request_id": "'"$request_id"'", "job": {"type": "hello", "labels": {"from": "shell"},
  "payload": {"content_type": "text/plain", "text": "world"}}}')
id=$(jq -r .job.id <<<"$made")
echo "job $id waits in queue $(jq -r .job.queue <<<"$made") for a worker"

answer='{}'
until jq -e .ended <<<"$answer" >/dev/null; do
  answer=$(repeat WaitJob '{"job_id": "'"$id"'", "timeout": "30s"}')
done
jq -r '.job | "\(.state) in attempt \(.attempt): \(.result.text // .error.message)"' <<<"$answer"
jq -e '.job.state == "JOB_STATE_COMPLETED"' <<<"$answer" >/dev/null
