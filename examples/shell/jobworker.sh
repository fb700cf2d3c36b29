# What every worker of jobwire must do, in a shell with grpcurl and jq: it claims over one stream, beats, settles in batches,
# stops what was cancelled or lost, reconnects, and drains. Source it, define `handle`, set the variables below, call `work`.
#
# handle   runs one job: the job as JSON on its stdin, the result on its stdout. Exit code 0 completes the job, 65 (EX_DATAERR)
#          fails it for good, 64 (EX_USAGE) says that nobody here knows its type, any other one fails it; its stderr is the
#          error's message. It may write its result's media type to $LEASE/content_type, and its error's code to
#          $LEASE/code. It gets SIGTERM when it must stop: $LEASE/cause then says why.

TARGET=${1:-127.0.0.1:7272}
WORKER=$(hostname | tr -c 'A-Za-z0-9._\n-' -)-$$-$RANDOM # unique among running processes
QUEUES='["default"]'
CONCURRENCY=4 # at most 1,000: one heartbeat carries no more
LEASE_SECONDS=30
GRACE_SECONDS=20 # for handlers to finish in, once the worker is to stop

SILENCE=45 # seconds that a stream may say nothing, three keepalives, until it counts as dead
set -m     # each background job is a process group of its own, which can be stopped with all that it has started

# call SERVICE/METHOD: the request as JSON on stdin; what went wrong on stderr, as JSON too.
call() { grpcurl -plaintext -format-error -max-time 5 -d @ "$TARGET" "jobwire.v1.$1"; }

# Why jobwire refused a call, such as JOB_EXISTS; nothing when it was not jobwire that did. Reads what `call` has said.
reason() { jq -rs 'first(.[] | objects | .details[]? | select(.domain == "jobwire").reason) // ""' 2>/dev/null || true; }

# report FRACTION MESSAGE: within a handler, tells everybody how far the job is.
report() {
  jq -n --arg id "$JOB_ID" --arg token "$TOKEN" --argjson fraction "$1" --arg message "$2" \
    '{job_id: $id, $token, progress: {$fraction, $message}}' | call JobService/UpdateJob >/dev/null
}

draining() { :; } # the worker has been told to stop
settled() { :; }  # settled UPDATE REASON: the server's answer to a settlement; the reason is empty when it was accepted

work() {
  # One folder for each lease that is held, by its token: job, pid of the handler, cause of its stop. Two bells.
  STATE=$(mktemp -d)
  mkdir "$STATE/held"
  mkfifo "$STATE/beat" "$STATE/settle"
  exec 3<>"$STATE/beat" 4<>"$STATE/settle"
  is_draining='' stream=''
  trap drain TERM INT
  beat_on & beating=$!
  settle_on & settling=$!
  disown -a # nobody wants to read that they have ended
  claim && ended='' || ended=$(cat "$STATE/refused")
  # Beats and settlements outlive the stream: until the last job is settled, its lease must be kept.
  local patience=$((SECONDS + GRACE_SECONDS))
  while held && ((SECONDS < patience)); do sleep 0.1; done
  stop_all draining
  while held; do sleep 0.1; done
  kill -- "-$beating" "-$settling" 2>/dev/null
  rm -rf "$STATE"
  [[ -z $ended ]] || { echo "worker $WORKER ends: $ended" >&2; return 1; }
}

drain() {
  trap '' TERM INT
  is_draining=1
  draining
  beat # what has just come is acknowledged before the stream is cancelled: else the server takes it back
  hang_up
}

held() { compgen -G "$STATE/held/*" >/dev/null; }
hang_up() { [[ -z $stream ]] || kill -- "-$stream" 2>/dev/null || true; }
backoff() { sleep "$(jq -n "$RANDOM / 32768 * ([0.1 * pow(2; $1), 2] | min)")"; } # below a bound that doubles, up to 2 s

# Keeps one claim stream open until the worker is to stop. Fails when no reconnecting can help.
claim() {
  local tries=0 event
  while [[ -z $is_draining ]]; do
    rm -f "$STATE/events" && mkfifo "$STATE/events"
    # The session rises from stream to stream: the server keeps the newest.
    jq -n --arg id "$WORKER" --arg session "$(date +%s%6N)" --argjson queues "$QUEUES" --argjson credit "$CONCURRENCY" \
      --arg lease "${LEASE_SECONDS}s" --arg runtime "bash/$BASH_VERSION" \
      '{worker: {$id, $session, $runtime}, $queues, max_in_flight: $credit, lease_duration: $lease}' >"$STATE/request"
    { grpcurl -plaintext -format-error -d @ "$TARGET" jobwire.v1.JobService/ClaimJob <"$STATE/request" 2>"$STATE/error" |
      jq --unbuffered -c . >"$STATE/events"; } &
    stream=$!
    disown
    while read -r -t "$SILENCE" event; do
      tries=0
      [[ -n $is_draining ]] || take "$event" # unacknowledged, it goes back with the end of the stream
    done <"$STATE/events"
    hang_up
    reason <"$STATE/error" >"$STATE/refused"
    case $(cat "$STATE/refused") in
      SUPERSEDED | INVALID_FIELD | UNAUTHENTICATED | PERMISSION_DENIED) return 1 ;;
    esac
    [[ -n $is_draining ]] || backoff $((tries++))
  done
}

take() {
  local assignment id fence cause
  while read -r assignment; do
    start "$assignment"
    echo >&3
  done < <(jq -c '.jobs.assignments[]?' <<<"$1")
  read -r id fence cause < <(jq -r '(.cancel // empty | "\(.job_id) \(.fence) canceled for \(.reason // "")"),
    (.lost // empty | "\(.job_id) \(.fence) lost")' <<<"$1") || return 0
  # A word about an older lease is not for us.
  for LEASE in "$STATE"/held/*; do
    [[ $(jq -r '.id + " " + .fence' "$LEASE/job" 2>/dev/null) != "$id $fence" ]] || stop "$LEASE" "$cause"
  done
}

start() {
  TOKEN=$(jq -r .token <<<"$1") JOB_ID=$(jq -r .job.id <<<"$1")
  local older
  # Of two runs of one job the newer one wins: the older has lost its lease.
  for older in "$STATE"/held/*; do
    [[ $(jq -r .id "$older/job" 2>/dev/null) != "$JOB_ID" ]] || stop "$older" lost
  done
  LEASE=$STATE/held/$TOKEN
  mkdir "$LEASE"
  jq -c .job <<<"$1" >"$LEASE/job"
  run &
  disown
}

# Runs the handler to its end, and leaves what to report to the settler.
run() {
  set -m # a subshell begins without: the handler is a process group of its own, too
  trap - TERM INT
  handle <"$LEASE/job" >"$LEASE/result" 2>"$LEASE/error" &
  local handler=$! code=0
  echo "$handler" >"$LEASE/pid"
  [[ ! -e $LEASE/cause ]] || kill -- "-$handler" 2>/dev/null
  wait "$handler" || code=$?
  if [[ -e $LEASE/cause && $(cat "$LEASE/cause") == lost ]]; then
    drop "$LEASE" # nothing to report: whoever has the lease now will
    return
  fi
  if ((code == 0)); then
    result
  elif ((code == 64)); then
    echo '{"release": {"delay": "30s"}}' # for a worker that knows the type
  elif [[ -e $LEASE/cause ]]; then
    echo '{"release": {}}' # stopped, and not its fault: after a cancel this makes the job CANCELED
  else
    jq -n --rawfile message "$LEASE/error" --arg code "$(cat "$LEASE/code" 2>/dev/null || echo "EXIT_$code")" \
      --argjson permanent "$((code == 65))" \
      '{fail: {error: {$code, message: ($message | rtrimstr("\n"))}, permanent: ($permanent == 1)}}'
  fi | jq -c --arg id "$JOB_ID" --arg token "$TOKEN" '{job_id: $id, $token} + .' >"$LEASE/update"
  echo "$TOKEN" >&4
}

# What the handler has printed: text where it is some, else bytes.
result() {
  local content_type=''
  [[ ! -e $LEASE/content_type ]] || content_type=$(cat "$LEASE/content_type")
  if iconv --from-code UTF-8 "$LEASE/result" >/dev/null 2>&1; then
    jq -n --arg content_type "$content_type" --rawfile text "$LEASE/result" '{complete: {result: {$content_type, $text}}}'
  else
    jq -n --arg content_type "$content_type" --arg data "$(base64 -w 0 "$LEASE/result")" \
      '{complete: {result: {$content_type, $data}}}'
  fi
}

# stop LEASE CAUSE
stop() {
  [[ ! -e $1/cause ]] && echo "$2" 2>/dev/null >"$1/cause" || return 0
  [[ ! -e $1/pid ]] || kill -- "-$(cat "$1/pid")" 2>/dev/null || true
}
stop_all() { for LEASE in "$STATE"/held/*; do stop "$LEASE" "$1"; done; }

# At once for what has just come, which acknowledges it; then every third of the lease, sooner while nobody answers.
beat_on() {
  trap - TERM INT
  local interval wait
  interval=$(jq -n "$LEASE_SECONDS / 3") wait=$interval
  while true; do
    read -r -t "$wait" -u 3 || true
    wait=$interval
    beat || wait=$(jq -n "[$interval, 1] | min")
  done
}

beat() {
  local beaten=$STATE/beaten.$BASHPID answer token state reason
  for LEASE in "$STATE"/held/*; do
    jq -c --arg token "${LEASE##*/}" '{job_id: .id, $token}' "$LEASE/job" 2>/dev/null
  done | jq -sc --arg id "$WORKER" '{worker: {$id}, leases: .}' >"$beaten"
  answer=$(call WorkerService/Heartbeat <"$beaten" 2>/dev/null) || return 1
  while read -r token state reason; do
    case $state in
      LEASE_STATE_LOST) stop "$STATE/held/$token" lost ;;
      LEASE_STATE_CANCEL_REQUESTED) stop "$STATE/held/$token" "canceled for $reason" ;;
    esac
  done < <(jq -r --slurpfile beaten "$beaten" \
    '[.leases // [], $beaten[0].leases] | transpose[] | "\(.[1].token) \(.[0].state) \(.[0].cancel_reason // "")"' <<<"$answer")
  [[ $(jq -r .directive <<<"$answer") != WORKER_DIRECTIVE_TERMINATE ]] || kill -TERM $$
}

# Whether another job is ready to be settled, or is so in a moment. A read that times out could take half of its token.
another() { read -r -t 0 -u 4 || { sleep 0.01 && read -r -t 0 -u 4; }; }

# Sends settlements, all that wait in one call. One that is not answered is repeated: the token makes that safe.
settle_on() {
  trap - TERM INT
  local tokens token answer tries number
  while read -r -u 4 token; do
    tokens=("$token") tries=0
    # With results of 256 KiB fifty stay below the 16 MiB of a message.
    while ((${#tokens[@]} < 50)) && another && read -r -u 4 token; do tokens+=("$token"); done
    until answer=$(for token in "${tokens[@]}"; do cat "$STATE/held/$token/update"; done |
      jq -sc '{requests: ., brief: true}' | call JobService/BatchUpdateJobs); do
      backoff $((tries++))
    done
    for number in "${!tokens[@]}"; do
      answered "${tokens[number]}" "$(jq -c ".results[$number].error // {}" <<<"$answer")"
    done
  done
}

# answered TOKEN ERROR
answered() {
  local lease=$STATE/held/$1 why
  why=$(jq -r '.reason // ""' <<<"$2")
  case $why in
    '' | LEASE_LOST | ALREADY_SETTLED | JOB_NOT_FOUND) ;; # nothing more can be said about this attempt
    *)
      if jq -e .complete "$lease/update" >/dev/null; then
        # Such as a result that is TOO_LARGE: the job must not stay silent for that.
        jq -c --argjson error "$2" 'del(.complete) + {fail: {error: {code: $error.reason, message: $error.message},
          permanent: true}}' "$lease/update" >"$lease/failure" && mv "$lease/failure" "$lease/update"
        echo "$1" >&4
        return
      fi
      ;;
  esac
  settled "$(cat "$lease/update")" "$why"
  drop "$lease"
}

# In one step: whoever writes the cause of a stop into a folder that is being deleted would keep it.
drop() {
  mv "$1" "$STATE/dropped-${1##*/}" && rm -rf "$STATE/dropped-${1##*/}"
}
