#!/usr/bin/env bash
# Builds the images of the Dockerfile: build.sh [TARGET]...      all targets by default
#
# Environment:
#   ENGINE       podman, docker or buildah; the first one that is installed
#   TAG          tag of the images, the version of setup.py by default
#   EXTRAS       extras of setup.py in place of those of the target, such as postgresql,s3
#   PIP_CONFIG   a pip.conf for the build, for a private package index; it is not in the image
#   BUILD_FLAGS  more flags for the build
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

engine=${ENGINE:-$(command -v podman || command -v docker || command -v buildah || true)}
[ -n "$engine" ] || {
    echo "build.sh: neither podman nor docker nor buildah is installed" >&2
    exit 1
}
version=$(sed -n 's/^    version="\(.*\)",$/\1/p' setup.py)
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
# The time of the commit: the same sources give the same image.
epoch=$(git log -1 --format=%ct 2> /dev/null || echo 315532800)
created=$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)

flags=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created"
    --build-arg "SOURCE_DATE_EPOCH=$epoch")
[ -z "${EXTRAS:-}" ] || flags+=(--build-arg "EXTRAS=$EXTRAS")
[ -z "${PIP_CONFIG:-}" ] || flags+=(--secret "id=pip-config,src=$PIP_CONFIG")
read -ra more <<< "${BUILD_FLAGS:-}"

[ $# -gt 0 ] || set -- batch api spark luigid
for target in "$@"; do
    name=spamscore-$target
    [ "$target" != batch ] || name=spamscore
    "$engine" build --file deploy/docker/Dockerfile --target "$target" --tag "$name:${TAG:-$version}" \
        "${flags[@]}" "${more[@]}" .
    echo "built $name:${TAG:-$version}"
done
