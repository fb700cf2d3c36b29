#!/usr/bin/env bash
# From nothing to a completed job: a server in memory, and a worker and a producer of one language. examples/run.sh go
# Needs `jobwire` on PATH, and the toolchain of the language.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
language=${1:?which language? go, java, python, shell or typescript}
[[ ${2:-} == built ]] || "$root/examples/build.sh" "$language"
cd "$root/examples/$language"

java=(java -cp 'target/classes:target/lib/*')
case $language in
  go) worker=("$root/build/examples/go/worker") producer=("$root/build/examples/go/producer") ;;
  java) worker=("${java[@]}" jobwire.example.Worker) producer=("${java[@]}" jobwire.example.Producer) ;;
  python) worker=(python worker.py) producer=(python producer.py) ;;
  shell) worker=(./worker.sh) producer=(./producer.sh) ;;
  typescript) worker=(node dist/worker.js) producer=(node dist/producer.js) ;;
  *) echo "no examples in $language" >&2; exit 2 ;;
esac

exec 3< <(exec jobwire serve --store memory:// --listen 127.0.0.1:0 --http off)
server=$!
trap 'kill "$server" 2>/dev/null' EXIT
read -r _ _ address <&3 # listening on HOST:PORT

"${worker[@]}" "$address" &
working=$!
trap 'kill "$working" "$server" 2>/dev/null' EXIT
"${producer[@]}" "$address"
kill "$working"
wait "$working" || (($? == 143)) # Java says that it was a signal
