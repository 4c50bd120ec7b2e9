#!/usr/bin/env bash
# Starts TensorFlow Serving on the exports of a model: the program tensorflow_model_server, or else its container.
#
#   deploy/serving/serve.sh [EXPORTS] [FLAG]...      EXPORTS is artifacts/exports/spam_ham by default
#
# Environment:
#   GRPC_PORT, REST_PORT   ports, 8500 and 8501. The program listens on all addresses.
#   LISTEN                 address of this machine at which the container is published, 127.0.0.1
#   POLL_SECONDS           pause between two looks at models.config, and at the folders: 5. [serving] load_seconds must be
#                          at least two of them and the time to load a version.
#   TLS_CONFIG             file that tls-config.sh wrote, for gRPC over TLS; REST has no TLS
#   IMAGE, ENGINE          image, tensorflow/serving:2.20.0; podman or docker
set -euo pipefail

fail() {
    echo "serve.sh: $1" >&2
    exit 1
}

exports=$(realpath "${1:-artifacts/exports/spam_ham}")
[ $# -eq 0 ] || shift
[ -f "$exports/models.config" ] || fail "$exports/models.config: no such file. Export a model: luigi --module pipeline ExportModel"

# What models.config calls the folder: its path here, or [serving] base_path.
base=$(sed -n 's/^    base_path: "\(.*\)"$/\1/p' "$exports/models.config")
grpc_port=${GRPC_PORT:-8500} rest_port=${REST_PORT:-8501} poll=${POLL_SECONDS:-5}

flags() { # $1: the folder as the server sees it
    printf '%s\n' \
        "--model_config_file=$1/models.config" \
        "--model_config_file_poll_wait_seconds=$poll" \
        "--file_system_poll_wait_seconds=$poll" \
        "--allow_version_labels_for_unavailable_models=true" \
        "--enable_batching=true" \
        "--batching_parameters_file=$1/batching.config" \
        "--monitoring_config_file=$1/monitoring.config" \
        "--rest_api_timeout_in_ms=30000"
}

if command -v tensorflow_model_server > /dev/null; then
    [ "$base" = "$exports" ] || [ -d "$base" ] || [[ "$base" == *://* ]] ||
        fail "models.config has base_path $base, which is not a folder here. Correct [serving] base_path, then: spamscore serve N"
    mapfile -t arguments < <(flags "$exports")
    [ -z "${TLS_CONFIG:-}" ] || arguments+=("--ssl_config_file=$TLS_CONFIG")
    exec tensorflow_model_server "--port=$grpc_port" "--rest_api_port=$rest_port" "${arguments[@]}" "$@"
fi

engine=${ENGINE:-$(command -v podman || command -v docker || true)}
[ -n "$engine" ] || fail "neither tensorflow_model_server nor podman nor docker is installed"
[[ "$base" != *://* ]] || fail "models.config has base_path $base: give the container access to it with a command of your own"
# The folder is mounted, not the file: models.config is replaced, and a mounted file would stay the old one.
mounts=(--volume "$exports:$base:ro")
mapfile -t arguments < <(flags "$base")
if [ -n "${TLS_CONFIG:-}" ]; then
    mounts+=(--volume "$(realpath "$TLS_CONFIG"):/tls.config:ro")
    arguments+=("--ssl_config_file=/tls.config")
fi
listen=${LISTEN:-127.0.0.1}
exec "$engine" run --rm --init --read-only --tmpfs /tmp --cap-drop=ALL --security-opt=no-new-privileges \
    --user "$(id -u):$(id -g)" --publish "$listen:$grpc_port:8500" --publish "$listen:$rest_port:8501" \
    "${mounts[@]}" --entrypoint tensorflow_model_server "${IMAGE:-tensorflow/serving:2.20.0}" \
    --port=8500 --rest_api_port=8501 "${arguments[@]}" "$@"
