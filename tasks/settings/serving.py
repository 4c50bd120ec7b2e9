"""Declares the settings of serving the exported model: [serving]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import setting

# Host and port, with an IPv6 address in brackets; or a Unix socket. No user: nothing reads it, and it may be a secret.
ADDRESS = r"(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+):\d{1,5}|unix:[^\s@]+"
REST_ADDRESS = r"(https?://)?(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]?#]+)(:\d{1,5})?(/[^\s?#]*)?"


@dataclass(frozen=True)
class ServingSettings:
    """[serving]: TensorFlow Serving, from the files that it reads to the clients that ask it."""

    base_path: str = setting(
        "",
        "absolute path or URI at which TensorFlow Serving finds the folder exports/<model_name>, such as "
        "/models/spam_ham; empty for the folder on this machine",
        affects_result=False,
    )
    keep_loaded: int = setting(
        5,
        "newest versions that TensorFlow Serving keeps loaded, besides those with a label, so that a rollback to one "
        "of them takes effect at once",
        low=1,
        high=100,
        affects_result=False,
    )
    load_seconds: int = setting(
        30,
        "seconds that TensorFlow Serving gets to load a version that it does not keep loaded, before spamscore serve "
        "moves a label to the version; 0 if there is no server",
        low=0,
        high=3600,
        affects_result=False,
    )
    server: str = setting(
        "127.0.0.1:8500",
        "address of the gRPC port of TensorFlow Serving, or of another server with its protocol, which clients ask",
        affects_result=False,
    )
    rest_server: str = setting(
        "127.0.0.1:8501",
        "address of the REST port of the server, or a URL such as https://proxy.internal/serving",
        affects_result=False,
    )
    timeout: float = setting(
        10.0,
        "seconds after which a call to the server has failed, with all its attempts",
        low=0.01,
        high=600,
        affects_result=False,
    )
    retries: int = setting(
        2,
        "attempts after the first one of a call, with growing pauses, if the server is unreachable or overloaded",
        low=0,
        high=4,
        reason="gRPC makes at most 5 attempts",
        affects_result=False,
    )
    tls: bool = setting(
        False, "whether clients ask the server over TLS; a file below switches it on too", affects_result=False
    )
    ca_file: str = setting(
        "",
        "PEM file of the authorities that sign the server's certificate; empty for those that are publicly trusted",
        affects_result=False,
    )
    certificate_file: str = setting(
        "", "PEM file of the client certificate, for mutual TLS; empty for none", affects_result=False
    )
    key_file: str = setting("", "PEM file of the key of the client certificate", affects_result=False)
    token: str = setting(
        "",
        "token that clients send as authorization: Bearer; SPAMSCORE_SERVING_TOKEN takes precedence, and the token "
        "belongs there; empty for none",
        secret=True,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if self.base_path and not re.fullmatch(r"(/|[a-z][a-z0-9]*://)[^\s\"'\\]*", self.base_path):
            raise SettingsError(
                f"[serving] base_path = {self.base_path}: expected an absolute path such as /models/spam_ham, or a URI "
                "such as s3://bucket/spam_ham, without spaces, quotes and backslashes. Set it in luigi.cfg, or leave "
                "it empty for the folder on this machine."
            )
        for key, form, example in (
            ("server", ADDRESS, "127.0.0.1:8500"),
            ("rest_server", REST_ADDRESS, "127.0.0.1:8501 or https://proxy.internal/serving"),
        ):
            if not re.fullmatch(form, value := getattr(self, key)):
                shown = "…" if "@" in value else value  # it may have a password
                raise SettingsError(
                    f"[serving] {key} = {shown}: expected an address such as {example}. Set it in luigi.cfg "
                    "or with --server."
                )
        if not re.fullmatch(r"[!-~]*", self.token):
            raise SettingsError(
                "[serving] token = …: expected printable ASCII without spaces. Set it in SPAMSCORE_SERVING_TOKEN."
            )
