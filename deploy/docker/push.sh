#!/usr/bin/env bash
# Pushes the images, prints the digest of each, and writes its bill of materials (SBOM, CycloneDX) into sbom/.
#
#   push.sh REGISTRY [TARGET]...      such as push.sh registry.internal/spam batch api; all targets by default
#
# Environment: ENGINE (podman or docker) and TAG, as for build.sh; SBOM_FOLDER, in place of sbom; PUSH_FLAGS, more flags
# of podman push. The program cyclonedx-py is in the extra images.
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
folder=${SBOM_FOLDER:-sbom}
mkdir -p "$folder"
for target in "$@"; do
    name=spamscore-$target
    [ "$target" != batch ] || name=spamscore
    # The Python packages of the image itself.
    "$engine" run --rm --network none --entrypoint python "$name:$tag" -c "$LIST_PACKAGES" |
        cyclonedx-py requirements --output-reproducible --output-file "$folder/$name-$tag.cdx.json" -
    "$engine" tag "$name:$tag" "$registry/$name:$tag"
    if [ "$(basename "$engine")" = docker ]; then
        "$engine" push "$registry/$name:$tag"
        # An image that was pushed to several registries has a digest for each.
        digest=$("$engine" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$registry/$name:$tag" |
            grep --fixed-strings "$registry/$name@")
    else
        "$engine" push "${flags[@]}" --digestfile "$folder/digest" "$registry/$name:$tag"
        digest=$registry/$name@$(cat "$folder/digest")
        rm "$folder/digest"
    fi
    echo "pushed $digest; SBOM: $folder/$name-$tag.cdx.json"
done
