"""Turns the status of a failed call into one line: what is wrong, with which server and version, and the way out.

TensorFlow Serving makes the HTTP codes of its REST API from gRPC codes (model_servers/http_server.cc). So both clients
come here with the name of a gRPC code and the server's text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from models.errors import ServerError
from pipeline.client.server import ModelServer

_MAX_DETAILS = 300
_HTTP_CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    405: "UNIMPLEMENTED", 409: "ABORTED", 413: "TOO_LARGE", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED",
    501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


class _Fault(NamedTuple):
    """A kind of failure.

    Attributes:
        text: regular expression that is found in the server's text, in any case.
        kind: `ServerError.kind`.
        problem: what is wrong.
        advice: the way out.
    """

    text: str
    kind: str
    problem: str
    advice: str


_START = "Start the server, or correct [serving] {setting} or --server."
_FEWER = "Send fewer messages in a call."
_NOT_SPAMSCORE = _Fault(
    "signature|alias|named input",
    "signature",
    "the model has not the signature that was asked for: {details}",
    "Expected a model that spamscore exported: check --model.",
)
# For each code, the faults it can stand for. The first one whose text is found is used.
_FAULTS: dict[str, tuple[_Fault, ...]] = {
    "UNAVAILABLE": (
        _Fault("refused|no such file", "unreachable", "connection refused: no server listens there", _START),
        _Fault(
            "DNS|resol|not known|domain name",
            "unreachable",
            "the host is not found",
            "Correct [serving] {setting} or --server.",
        ),
        _Fault(
            "ssl|tls|certificate|handshake",
            "TLS",
            "no TLS connection: {details}",
            "Check that the server speaks TLS on this port, that ca_file of [serving] signed its certificate for the "
            "name in the address, and, for mutual TLS, certificate_file and key_file.",
        ),
        _Fault(
            "closed|reset|EOF|removed|GOAWAY|recvmsg|without response|broken",
            "unreachable",
            "the connection was closed: {details}",
            "If the server speaks TLS, add --tls or [serving] tls; if it wants a client certificate, --certificate and "
            "--key. Otherwise look at the log of the server.",
        ),
        _Fault("no route|unreachable", "unreachable", "no route to the host", _START),
        _Fault("", "unreachable", "the server is not available: {details}", "Try again; look at the server's log."),
    ),
    "DEADLINE_EXCEEDED": (
        _Fault(
            "",
            "deadline",
            "no answer within {timeout:g} s",
            "Raise [serving] timeout or --timeout; if the server never answers, look at its log and at firewalls.",
        ),
    ),
    "NOT_FOUND": (
        _Fault(
            r"Specific\(|find version",
            "not served",
            "the server has not loaded this version: {details}",
            "Choose another version; or put this one in service with spamscore serve, and wait for the next poll.",
        ),
        _Fault(
            r"Latest\(|could not find",
            "not served",
            "the server has not loaded the model: {details}",
            "Check --model or [artifacts] model_name, and the server's log.",
        ),
        _Fault("", "form", "there is no such path: {details}", "Check that the address is a model server's REST port."),
    ),
    "INVALID_ARGUMENT": (
        _Fault(
            "version label",
            "not served",
            "the server has no such label for this model: {details}",
            "Check --label and --model. spamscore serve writes the labels; the server reads them at its next poll.",
        ),
        _Fault(
            "larger than maximum",
            "too large",
            "too many messages in one call: {details}",
            "Send fewer messages in a call, or raise max_batch_size in batching.config.",
        ),
        _NOT_SPAMSCORE,
        _Fault("", "failed", "the server rejected the request: {details}", "Look at the server's log."),
    ),
    "FAILED_PRECONDITION": (_NOT_SPAMSCORE,),
    "RESOURCE_EXHAUSTED": (
        _Fault("message larger|too large", "too large", "the request or the answer is too large: {details}", _FEWER),
        _Fault(
            "",
            "overloaded",
            "the server is overloaded: {details}",
            "Try again later, with fewer calls at once; or start more servers.",
        ),
    ),
    "TOO_LARGE": (_Fault("", "too large", "the request is too large: {details}", _FEWER),),
    "UNAUTHENTICATED": (
        _Fault(
            "",
            "not allowed",
            "the server requires authentication: {details}",
            "Set the token in SPAMSCORE_SERVING_TOKEN, or the client certificate with --certificate and --key.",
        ),
    ),
    "PERMISSION_DENIED": (
        _Fault("", "not allowed", "the server does not allow the call: {details}", "Ask its operator for permission."),
    ),
    "UNIMPLEMENTED": (
        _Fault(
            "",
            "form",
            "the server does not know the call: {details}",
            "Check that {address} is the {protocol} port of a server with TensorFlow Serving's protocol.",
        ),
    ),
}
_OTHER = _Fault("", "failed", "the server failed with {code}: {details}", "Look at the server's log.")
_TEMPORARY = ("unreachable", "deadline", "overloaded", "failed")


def call_error(server: ModelServer, code: str, details: str, timeout: float | None = None) -> ServerError:
    """Builds the error for a failed call.

    Args:
        server: the server that was asked.
        code: name of the gRPC code.
        details: text of the server or of the connection. Texts that may quote a message are left out.
        timeout: seconds that the call had; None for those of the server.
    """
    details = "" if "JSON Value" in details else re.sub(r"\s+", " ", details).strip()[:_MAX_DETAILS].rstrip(".")
    faults = (*_FAULTS.get(code, ()), _OTHER)
    fault = next(fault for fault in faults if re.search(fault.text, details, re.IGNORECASE))
    is_rest = "://" in server.address
    values = {
        "address": server.address,
        "code": code,
        "details": details or "no text",
        "protocol": "REST" if is_rest else "gRPC",
        "setting": "rest_server" if is_rest else "server",
        "timeout": timeout or server.timeout,
    }
    message = f"{server}: {fault.problem.format(**values)}. {fault.advice.format(**values)}"
    return ServerError(message, fault.kind, temporary=fault.kind in _TEMPORARY)


def http_error(server: ModelServer, status: int, details: str, timeout: float | None = None) -> ServerError:
    """Builds the error for an HTTP answer that is not 200."""
    code = _HTTP_CODES.get(status, f"HTTP status {status}")
    return call_error(server, code, details, timeout)
