#!/usr/bin/env bash
# Shows what only a real TensorFlow Serving can show: that it loads the exports, runs the warm-up, accepts the
# configuration files, answers as the batch scores, and moves labels by polling.
#
#   deploy/serving/check-real-server.sh [FOLDER]     FOLDER has luigi.cfg and artifacts/ with two versions; default: .
#
# It works on a copy of the exports and their trainings, with ports of its own (GRPC_PORT, REST_PORT). The exit code is
# 0 if all holds, 1 if something does not, 3 if no server is installed.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
folder=$(realpath "${1:-.}")
export GRPC_PORT=${GRPC_PORT:-18500} REST_PORT=${REST_PORT:-18501} POLL_SECONDS=1
server=(--server "127.0.0.1:$GRPC_PORT") rest=(--rest --server "127.0.0.1:$REST_PORT")

fail() {
    echo "FAILED: $1" >&2
    [ ! -f "${work:-/nowhere}/server.log" ] || tail -n 30 "$work/server.log" >&2
    exit 1
}

if ! command -v tensorflow_model_server > /dev/null; then
    engine=${ENGINE:-$(command -v podman || command -v docker || true)}
    if [ -z "$engine" ] || ! "$engine" info > /dev/null 2>&1; then
        echo "NOT CHECKED: there is no tensorflow_model_server, and no podman or docker that runs containers" >&2
        exit 3
    fi
fi

work=$(mktemp -d)
pid=
cleanup() {
    [ -z "$pid" ] || kill -KILL -- "-$pid" 2> /dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work/artifacts"
cp "$folder/luigi.cfg" "$work/" 2> /dev/null || true
for name in exports training evaluation; do
    cp -a "$folder/artifacts/$name" "$work/artifacts/" || fail "$folder/artifacts/$name: cannot be copied"
done
cd "$work"
export LUIGI_CONFIG_PATH="$work/luigi.cfg"

mapfile -t versions < <(spamscore models | cut -f 1)
[ "${#versions[@]}" -ge 2 ] || fail "expected two exported versions, received ${#versions[@]}: export a second one first"
newest=${versions[0]} older=${versions[1]}
spamscore serve "$older" --yes > /dev/null
spamscore serve "$newest" --yes > /dev/null # models.config of the copy has the path of the original until now

wait_for() { # $1: expected version, then options of ask
    local expected=$1 answer
    shift
    for _ in $(seq 120); do
        answer=$(spamscore ask "${server[@]}" --json "$@" "Lunch at one?" 2> "$work/ask.log") || true
        [[ "$answer" != *"\"model_version\": $expected}"* ]] || return 0
        sleep 1
    done
    fail "expected an answer of version $expected ($*), received ${answer:-$(cat "$work/ask.log")}"
}

model=$(basename "$(dirname "$(ls -d "$work"/artifacts/exports/*/models.config)")")
setsid "$here/serve.sh" "$work/artifacts/exports/$model" > "$work/server.log" 2>&1 &
pid=$!
wait_for "$newest"
echo "ok: the server loads version $newest, with batching.config and monitoring.config"
grep -qi "warmup" server.log || fail "the log has no line about warm-up requests"
echo "ok: the warm-up requests ran"
labelled=$here/../../pipeline/sample/corpus.csv
spamscore check-server "${server[@]}" --messages "$labelled" || fail "check-server over gRPC"
spamscore check-server "${rest[@]}" --messages "$labelled" --per-call 100 || fail "check-server over REST"
echo "ok: gRPC and REST answer as the batch scores"
for protocol in server rest; do
    declare -n options=$protocol
    spamscore ask "${options[@]}" --classify "Lunch at one?" > /dev/null || fail "Classify ($protocol)"
done
echo "ok: Classify"
page=$(python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())' \
    "http://127.0.0.1:$REST_PORT/monitoring/prometheus/metrics") || fail "the page for Prometheus does not answer"
[[ "$page" == *":tensorflow:serving:request_count"* ]] || fail "the page for Prometheus has no request_count"
echo "ok: the page for Prometheus"
spamscore serve "$older" --yes > /dev/null
wait_for "$older"
echo "ok: a rollback to version $older by polling"
spamscore serve "$newest" --canary > /dev/null
wait_for "$newest" --label canary
wait_for "$older" --label stable
echo "ok: version $newest as the candidate"
spamscore serve "$newest" --yes > /dev/null
wait_for "$newest"
echo "ok: promotion of version $newest"
echo "ALL OK"
