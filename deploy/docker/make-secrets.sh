#!/usr/bin/env bash
# Writes the secrets of compose.yaml that are missing into a folder, each a random value: make-secrets.sh [FOLDER]
#
# The containers run as users of their own and must read the files. So the files are readable by all, in a folder that
# only its owner can enter.
set -euo pipefail

folder=${1:-secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

write() { # $1: name; standard input: the value
    if [ -s "$folder/$1" ]; then
        cat > /dev/null
        return
    fi
    cat > "$folder/$1"
    chmod 444 "$folder/$1"
    echo "wrote $folder/$1"
}

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

random | write database-password
printf 'postgresql://spamscore:%s@postgresql:5432/spamscore\n' "$(cat "$folder/database-password")" | write database-url
random | write api-token
random | write grafana-password
