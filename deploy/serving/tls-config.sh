#!/usr/bin/env bash
# Prints the file for TLS_CONFIG of serve.sh (--ssl_config_file): keys and certificates as text, one line each.
#
#   (umask 077; deploy/serving/tls-config.sh server.key server.pem ca.pem > tls.config)
#
# The server accepts only clients with a certificate of the authority in ca.pem (mutual TLS). Without ca.pem it accepts
# every client. The file has the server's key: keep it readable by the server's user alone.
set -euo pipefail

[ $# -eq 2 ] || [ $# -eq 3 ] || {
    echo "tls-config.sh: expected KEY CERTIFICATE [AUTHORITY], three PEM files" >&2
    exit 2
}

field() { # $1: name of the field, $2: PEM file
    grep -q -- '-----BEGIN' "$2" || {
        echo "tls-config.sh: $2: expected a PEM file" >&2
        exit 1
    }
    printf '%s: "' "$1"
    awk '{ sub(/\r$/, ""); printf "%s\\n", $0 }' "$2"
    printf '"\n'
}

field server_key "$1"
field server_cert "$2"
if [ $# -eq 3 ]; then
    field custom_ca "$3"
    echo "client_verify: true"
fi
