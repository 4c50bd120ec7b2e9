#!/usr/bin/env bash
# Makes stand-ins for the base images of deploy/docker, for machines that reach no registry of images.
#
#   base_images.sh ENGINE FOLDER      ENGINE is podman with its options; FOLDER is for files in between
#
# The stand-in of python:3.11-slim-bookworm is Debian bookworm with Debian's Python 3.11, at the same paths. That of
# tensorflow/serving is the same with a program that prints its arguments in place of the server. They have the names of
# the real images, so that the Dockerfiles are built as they are.
set -euo pipefail

engine=$1 folder=$2
python=docker.io/library/python:3.11-slim-bookworm
serving=docker.io/tensorflow/serving:2.20.0

# Nobody keeps the stand-in, so dpkg need not wait for the disk. mmdebstrap gives the hooks the folder as $1.
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --include=ca-certificates,python3,python3-pip,python3-venv \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python3"' \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
    bookworm "$folder/base.tar"
"$engine" import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    "$folder/base.tar" "$python" > /dev/null
rm "$folder/base.tar"

mkdir -p "$folder/serving"
printf '#!/bin/sh\nprintf "%%s\\n" "$@"\n' > "$folder/serving/tensorflow_model_server"
printf 'FROM %s\nCOPY --chmod=0755 tensorflow_model_server /usr/bin/\n' "$python" > "$folder/serving/Dockerfile"
"$engine" build --quiet --isolation chroot --pull=never --tag "$serving" "$folder/serving" > /dev/null
