#!/usr/bin/env bash
# Pushes the images, prints the digest of each, and writes its bill of materials (SBOM, CycloneDX) into sbom/.
#
#   push.sh REGISTRY [TARGET]...      such as push.sh registry.internal/spam batch api; all targets by default
#
# Environment: ENGINE (podman or docker) and TAG, as for build.sh; PUSH_FLAGS, more flags of podman push. The program
# cyclonedx-py is in the extra images.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

registry=${1:-}
[ -n "$registry" ] || {
    echo "push.sh: expected a registry: make push REGISTRY=registry.internal/spam" >&2
    exit 2
}
shift
engine=${ENGINE:-$(command -v podman || command -v docker || true)}
[ -n "$engine" ] || {
    echo "push.sh: neither podman nor docker is installed" >&2
    exit 1
}
version=$(sed -n 's/^    version="\(.*\)",$/\1/p' setup.py)
tag=${TAG:-$version}
read -ra flags <<< "${PUSH_FLAGS:-}"
LIST_PACKAGES='
from importlib.metadata import distributions
print(*sorted({f"{package.name}=={package.version}" for package in distributions()}), sep="\n")'

[ $# -gt 0 ] || set -- batch api spark luigid
mkdir -p sbom
for target in "$@"; do
    name=spamscore-$target
    [ "$target" != batch ] || name=spamscore
    # The Python packages of the image itself.
    "$engine" run --rm --network none --entrypoint python "$name:$tag" -c "$LIST_PACKAGES" |
        cyclonedx-py requirements --output-reproducible --output-file "sbom/$name-$tag.cdx.json" -
    "$engine" tag "$name:$tag" "$registry/$name:$tag"
    if [ "$(basename "$engine")" = docker ]; then
        docker push "$registry/$name:$tag"
        digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$registry/$name:$tag")
    else
        "$engine" push "${flags[@]}" --digestfile "sbom/digest" "$registry/$name:$tag"
        digest=$registry/$name@$(cat sbom/digest)
        rm sbom/digest
    fi
    echo "pushed $digest; SBOM: sbom/$name-$tag.cdx.json"
done
