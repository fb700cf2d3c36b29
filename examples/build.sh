#!/usr/bin/env bash
# Builds the examples of one language, in place: examples/build.sh go
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root/examples/$1"
case $1 in
  go)
    go build -o "$root/build/examples/go/" ./...
    ;;
  typescript)
    rm -rf node_modules/@jobwire node_modules/.package-lock.json # npm copies the stubs once per version, and they change
    npm install --prefer-offline --no-audit --no-fund --ignore-scripts
    npm run --silent build
    ;;
  java)
    mvn --quiet --batch-mode process-classes
    ;;
esac
