"""Declares the settings of serving the exported model: [serving] for TensorFlow Serving, [api] for the front end."""

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


@dataclass(frozen=True)
class ApiSettings:
    """[api]: the front end, which `spamscore api` starts."""

    host: str = setting(
        "127.0.0.1",
        "address that the front end listens on; another one than loopback needs a token, mutual TLS or "
        "allow_anyone = true",
        affects_result=False,
    )
    port: int = setting(8000, "port of the REST API; 0 takes a free one", low=0, high=65_535, affects_result=False)
    grpc_port: int = setting(
        0, "port of TensorFlow Serving's gRPC services; 0 for none", low=0, high=65_535, affects_result=False
    )
    backend: str = setting(
        "local",
        "where messages are scored: local in the process of the front end, server by TensorFlow Serving",
        choices=("local", "server"),
        affects_result=False,
    )
    batch_milliseconds: float = setting(
        2.0,
        "milliseconds that a request waits for others to share its batch; requests that arrive while a batch is "
        "computed always share the next one",
        low=0.0,
        high=10.0,
        affects_result=False,
    )
    largest_batch: int = setting(
        256, "largest number of messages in one call of the network", low=1, high=10_000, affects_result=False
    )
    max_messages: int = setting(
        1000, "largest number of messages of a request; more are refused with 422", low=1, high=100_000,
        affects_result=False,
    )  # fmt: skip
    max_body_bytes: int = setting(
        4 * 2**20, "largest body of a request in bytes; a larger one is refused with 413", low=1024, high=2**30,
        affects_result=False,
    )  # fmt: skip
    max_waiting: int = setting(
        10_000, "largest number of messages that wait; a request beyond it is refused with 429", low=1, high=10_000_000,
        affects_result=False,
    )  # fmt: skip
    timeout: float = setting(
        10.0, "seconds from the head of a request to its answer; then it ends with 503", low=0.1, high=3600.0,
        affects_result=False,
    )  # fmt: skip
    header_timeout: float = setting(
        10.0, "seconds in which a client must send the head of a request; then the connection is closed", low=0.1,
        high=3600.0, affects_result=False,
    )  # fmt: skip
    idle_timeout: float = setting(
        60.0, "seconds for which a connection stays open between two requests", low=0.1, high=3600.0,
        affects_result=False,
    )  # fmt: skip
    drain_seconds: float = setting(
        30.0, "seconds in which requests are still answered after SIGTERM", low=0.0, high=3600.0, affects_result=False
    )
    versions_loaded: int = setting(
        4, "model versions in memory, at least those in service and with a label; the least recently used one leaves",
        low=2, high=100, affects_result=False,
    )  # fmt: skip
    token: str = setting(
        "",
        "token that requests must send as Authorization: Bearer TOKEN; SPAMSCORE_API_TOKEN takes precedence; empty for "
        "none",
        secret=True,
        affects_result=False,
    )
    tls_certificate: str = setting(
        "", "PEM file with the certificate of the front end and its chain; empty for no TLS", affects_result=False
    )
    tls_key: str = setting("", "PEM file with the private key of tls_certificate", affects_result=False)
    tls_client_ca: str = setting(
        "", "PEM file with the authorities whose certificates clients must have (mutual TLS); empty for none",
        affects_result=False,
    )  # fmt: skip
    labelling: bool = setting(
        True, "let people label messages at /label, which shows the messages of published batches", affects_result=False
    )
    session_hours: int = setting(12, "hours for which a browser stays signed in", low=1, high=720, affects_result=False)
    hosts: str = setting(
        "",
        "names by which browsers reach the front end, such as spam.internal for a proxy in front of it, separated by "
        "commas; requests with another Host are refused; empty for the names of loopback, or for any elsewhere",
        affects_result=False,
    )
    allow_anyone: bool = setting(
        False, "listen on an address other than loopback without a token and without mutual TLS", affects_result=False
    )

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[!-~]*", self.token):
            raise SettingsError(
                "[api] token = …: expected printable ASCII without spaces. Set it in SPAMSCORE_API_TOKEN."
            )
        if bool(self.tls_certificate) != bool(self.tls_key):
            given, missing = ("certificate", "key") if self.tls_certificate else ("key", "certificate")
            raise SettingsError(
                f"[api] tls_{missing} is empty: expected a file, because tls_{given} is set, and TLS needs both. Set "
                "both in luigi.cfg."
            )
        if self.tls_client_ca and not self.tls_certificate:
            raise SettingsError(
                "[api] tls_certificate is empty: expected a file, because tls_client_ca is set, and mutual TLS needs "
                "the certificate and key of the front end too. Set all three in luigi.cfg."
            )
