"""Describes a model server and how to ask it, and what it answers: the part that the gRPC and the REST client share."""

from __future__ import annotations

import dataclasses
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.errors import ServerError, SettingsError
from tasks.artifacts.model_config import STABLE
from tasks.settings.loading import load
from tasks.settings.serving import ServingSettings
from tasks.settings.storage import ArtifactSettings

PREDICT_SIGNATURE, INPUT, OUTPUT = "predict_spam", "texts", "scores"
CLASSIFY_SIGNATURE, FEATURE, SPAM = "serving_default", "text", "spam"
# The messages of a call. The batching configuration that spamscore writes makes the server refuse more than 1,024.
MAX_CALL_MESSAGES = 512


@dataclass(frozen=True)
class ModelServer:
    """A model server, the model to ask for, and how to ask.

    Attributes:
        address: host and port, a Unix socket, or a URL for REST.
        model: name of the model.
        version: number of the version; None to ask by the label.
        label: label of the version; None, without a version too, for the largest version that is loaded.
        timeout: seconds after which a call has failed, with all its attempts.
        retries: attempts after the first one if the server is unreachable or overloaded.
        tls: whether to connect over TLS.
        ca_file: PEM file of authorities; empty for the publicly trusted ones.
        certificate_file: PEM file of the client certificate; empty for none.
        key_file: PEM file of its key.
        token: sent as ``authorization: Bearer``; empty for none.
    """

    address: str
    model: str
    version: int | None = None
    label: str | None = STABLE
    timeout: float = 10.0
    retries: int = 2
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    token: str = dataclasses.field(default="", repr=False)

    def __str__(self) -> str:
        version = f" version {self.version}" if self.version else f" label {self.label}" if self.label else ""
        return f"{self.address}: model {self.model}{version}"

    @property
    def uses_tls(self) -> bool:
        """Whether to connect over TLS: switched on, by a file of it, or by the URL."""
        return self.tls or bool(self.ca_file or self.certificate_file) or self.address.startswith("https://")


def configured_server(
    rest: bool = False, model: str | None = None, version: int | None = None, label: str | None = None, **changes: Any
) -> ModelServer:
    """Returns the server of [serving], for gRPC or REST.

    Args:
        rest: the REST port instead of the gRPC port.
        model: name of the model; None for [artifacts] model_name.
        version: number of the version; None to ask by the label.
        label: label of the version; None, without a version too, for stable.
        changes: values of [serving] that differ from the settings; those that are None are not changed.

    Raises:
        SettingsError: a value is not valid, a file of TLS is missing or damaged, or a token would be sent without TLS
            to another machine.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    settings = dataclasses.replace(load(ServingSettings), **given)
    server = ModelServer(
        address=settings.rest_server if rest else settings.server,
        model=model or load(ArtifactSettings).model_name,
        version=version,
        label=label or (None if version else STABLE),
        timeout=settings.timeout,
        retries=settings.retries,
        tls=settings.tls,
        ca_file=settings.ca_file,
        certificate_file=settings.certificate_file,
        key_file=settings.key_file,
        token=settings.token,
    )
    _check_tls(server)
    return server


def _check_tls(server: ModelServer) -> None:
    if bool(server.certificate_file) != bool(server.key_file):
        given, missing = ("certificate", "key") if server.certificate_file else ("key", "certificate")
        raise SettingsError(
            f"[serving] {missing}_file is empty: expected a file, because mutual TLS needs both, and {given}_file is "
            f"set. Set both in luigi.cfg or with --{missing} and --{given}."
        )
    if server.token and not server.uses_tls and not _is_local(server.address):
        raise SettingsError(
            f"[serving] token: expected TLS, because {server.address} is another machine, and anybody on the way could "
            "read the token. Set [serving] tls = true, or --tls; or unset SPAMSCORE_SERVING_TOKEN."
        )
    tls_context(server)


def tls_context(server: ModelServer) -> ssl.SSLContext | None:
    """Returns the TLS context for a server; None for a server without TLS.

    Raises:
        SettingsError: a file is missing or damaged, or key and certificate do not belong together.
    """
    if not server.uses_tls:
        return None
    context = ssl.create_default_context()
    names = "ca_file"
    try:
        if server.ca_file:
            context = ssl.create_default_context(cafile=server.ca_file)
        if server.certificate_file:
            names = "certificate_file, key_file"
            context.load_cert_chain(server.certificate_file, server.key_file)
    except OSError as error:  # of which ssl.SSLError is one
        files = server.ca_file if names == "ca_file" else f"{server.certificate_file}, {server.key_file}"
        reason = "no valid PEM file, or one that does not fit" if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            f"[serving] {names} = {files}: {reason}. Expected PEM files. Set them in luigi.cfg or with options."
        ) from None
    return context


def read_pem(path: str) -> bytes | None:
    """Returns the content of a PEM file that `tls_context` has checked; None for an empty path."""
    return Path(path).read_bytes() if path else None


def _is_local(address: str) -> bool:
    """Returns whether an address is on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.removeprefix("http://").split("/")[0].rpartition(":")[0].strip("[]") or address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Scores:
    """The answer to a call.

    Attributes:
        probabilities: spam probabilities, float32 [messages].
        version: the version that computed them.
    """

    probabilities: npt.NDArray[np.float32]
    version: int


@dataclass(frozen=True)
class VersionStatus:
    """A version of the model as the server reports it.

    Attributes:
        version: the version.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: why the version could not be loaded; empty if there was no error.
    """

    version: int
    state: str
    error: str = ""


@dataclass(frozen=True)
class Signature:
    """Names of the inputs and outputs of a signature."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Metadata:
    """The version that a version number or a label stands for, and its signatures by name."""

    version: int
    signatures: dict[str, Signature]


class Client(Protocol):
    """What the gRPC client and the REST client have in common. All methods can be called from several threads.

    Each method raises ServerError if the call fails. `timeout` replaces the timeout of the server for one call.
    """

    def predict(self, texts: Sequence[str], timeout: float | None = None) -> Scores:
        """Returns the spam probabilities of messages, by the signature predict_spam."""

    def classify(self, texts: Sequence[str], timeout: float | None = None) -> Scores:
        """Returns the spam probabilities of messages, by the default signature, which classifies `tf.Example`."""

    def status(self, timeout: float | None = None) -> list[VersionStatus]:
        """Returns the versions of the model that the server knows, ascending."""

    def metadata(self, timeout: float | None = None) -> Metadata:
        """Returns the version that answers now, and its signatures."""

    def close(self) -> None:
        """Closes the connections."""


def check_scores(server: ModelServer, values: npt.NDArray[np.float32], count: int, version: int | None) -> Scores:
    """Builds the answer to a call.

    Args:
        server: the server.
        values: the probabilities that it sent.
        count: the messages that were sent.
        version: the version that the server named; None if it named none.

    Raises:
        ServerError: the answer is not one probability a message, or names no version.
    """
    if values.shape != (count,):
        raise answer_error(server, f"one probability for each of {count} messages", f"shape {list(values.shape)}")
    if not ((values >= 0) & (values <= 1)).all():
        raise answer_error(server, "probabilities from 0 to 1", "a number outside, or NaN")
    if not version:
        raise answer_error(server, "the version that answered", "none")
    return Scores(values, version)


def answer_error(server: ModelServer, expected: str, received: str) -> ServerError:
    """Builds the error for an answer of another form."""
    return ServerError(
        f"{server}: expected {expected}, received {received}. Check that the address is a model server's and that the "
        "model was exported by spamscore.",
        "form",
    )


def spam_scores(server: ModelServer, results: Iterable[dict[str, float]]) -> npt.NDArray[np.float32]:
    """Returns the scores of the class spam, float32 [messages].

    Raises:
        ServerError: a message has no such class.
    """
    try:
        return np.array([scores[SPAM] for scores in results], np.float32)
    except KeyError:
        raise answer_error(server, f"the classes ham and {SPAM} for each message", "other classes") from None


def encode(texts: Sequence[str]) -> list[bytes]:
    """Encodes messages as UTF-8, with lone surrogates, which UTF-8 cannot encode, replaced by U+FFFD.

    The same as `models.text.cleaning.encode_utf8`, which is not imported because its module imports TensorFlow.
    """
    return [
        text.encode() if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        for text in texts
    ]
