#!/bin/sh
# For the Dockerfile: installs spamscore with extras from /wheels into /opt/spamscore, reduces it, and compiles it.
#
#   environment.sh EXTRAS [PART]...      EXTRAS as in setup.py, separated by commas; PART as for slim.py
set -eu

extras=$1
shift
python3 -m venv --without-pip /opt/spamscore
python3 -m pip --python /opt/spamscore/bin/python install --quiet --no-index --find-links /wheels --no-compile \
    "spamscore[$extras]"
python3 -m pip --python /opt/spamscore/bin/python check
site_packages=$(/opt/spamscore/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python3 "$(dirname "$0")/slim.py" "$site_packages" "$@"
# Hashes in place of times, so that the same sources give the same files. On all cores.
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site_packages"
