"""Asks a model server over the REST API of TensorFlow Serving. It needs neither gRPC nor TensorFlow.

The answers of the REST API do not say which version computed them. So a call by label first asks for the version that
the label stands for, and then asks that version.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
import urllib3

from models.errors import ServerError
from pipeline.client.failures import call_error, http_error
from pipeline.client.server import (
    CLASSIFY_SIGNATURE,
    FEATURE,
    PREDICT_SIGNATURE,
    Metadata,
    ModelServer,
    Scores,
    Signature,
    VersionStatus,
    answer_error,
    check_scores,
    encode,
    spam_scores,
    tls_context,
)

_MAX_ANSWER_BYTES = 64 * 2**20
_CONNECTIONS = 64  # that are kept open; more calls at once open more
_BLOCK_BYTES = 2**16
_MAX_PAUSE = 2.0
_OVERLOADED = (429, 502, 503)
Read = TypeVar("Read")


class _Time(NamedTuple):
    """The time that a call has: its end by the monotonic clock, and its length in seconds."""

    end: float
    seconds: float


class _RetryUntil(urllib3.Retry):
    """urllib3's retries with growing pauses and jitter, none of which ends after the deadline of the call."""

    def __init__(self, total: int, *, deadline: float, **options: Any) -> None:
        super().__init__(total, **options)
        self.deadline = deadline

    def new(self, **options: Any) -> _RetryUntil:
        """Returns the retries that are left."""
        return super().new(deadline=self.deadline, **options)

    def is_exhausted(self) -> bool:
        """Returns whether no attempt is left, or no time for one."""
        return super().is_exhausted() or time.monotonic() + self.get_backoff_time() >= self.deadline


class RestClient:
    """Connections to a model server; several threads may use it. See `server.Client` for the methods."""

    def __init__(self, server: ModelServer) -> None:
        """Prepares the connections. They are made by the first calls, and again whenever they are lost.

        Raises:
            SettingsError: a file of TLS is missing or damaged.
        """
        address = server.address.rstrip("/")
        if "://" not in address:
            address = f"{'https' if server.uses_tls else 'http'}://{address}"
        self.server = dataclasses.replace(server, address=address)
        self._base = f"{address}/v1/models/{quote(server.model, safe='')}"
        self._pool = urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=tls_context(server))

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def predict(self, texts: Sequence[str], timeout: float | None = None) -> Scores:
        """Returns the spam probabilities of messages, by the signature predict_spam.

        Raises:
            ServerError: the call fails.
        """
        body = {"signature_name": PREDICT_SIGNATURE, "instances": [text.decode() for text in encode(texts)]}
        return self._score(
            "predict", body, timeout, len(texts), lambda answer: np.array(answer["predictions"], np.float32)
        )

    def classify(self, texts: Sequence[str], timeout: float | None = None) -> Scores:
        """Returns the spam probabilities of messages, by the default signature, which classifies `tf.Example`.

        Raises:
            ServerError: the call fails.
        """
        examples = [{FEATURE: text.decode()} for text in encode(texts)]
        body = {"signature_name": CLASSIFY_SIGNATURE, "examples": examples}
        return self._score(
            "classify", body, timeout, len(texts), lambda answer: spam_scores(self.server, map(dict, answer["results"]))
        )

    def status(self, timeout: float | None = None) -> list[VersionStatus]:
        """Returns the versions of the model that the server knows, ascending.

        Raises:
            ServerError: the call fails.
        """
        return self._read(
            self._request("GET", "", self._start(timeout)),
            "model_version_status",
            lambda answer: sorted(
                (
                    VersionStatus(int(one["version"]), one["state"], one.get("status", {}).get("error_message", ""))
                    for one in answer["model_version_status"]
                ),
                key=lambda status: status.version,
            ),
        )

    def metadata(self, timeout: float | None = None) -> Metadata:
        """Returns the version that answers now, and its signatures.

        Raises:
            ServerError: the call fails.
        """
        return self._metadata(self._start(timeout))

    def _metadata(self, limit: _Time) -> Metadata:
        version = f"/versions/{self.server.version}" if self.server.version else ""
        label = f"/labels/{quote(self.server.label, safe='')}" if self.server.label and not version else ""
        return self._read(
            self._request("GET", f"{version}{label}/metadata", limit),
            "model_spec and metadata",
            lambda answer: Metadata(
                int(answer["model_spec"]["version"]),
                {
                    name: Signature(tuple(sorted(one["inputs"])), tuple(sorted(one["outputs"])))
                    for name, one in answer["metadata"]["signature_def"]["signature_def"].items()
                    if "inputs" in one
                },
            ),
        )

    def _score(
        self,
        verb: str,
        body: dict[str, Any],
        timeout: float | None,
        count: int,
        read: Callable[[Any], Any],
    ) -> Scores:
        limit = self._start(timeout)
        version = self.server.version or self._metadata(limit).version
        answer = self._request("POST", f"/versions/{version}:{verb}", limit, json.dumps(body).encode())
        return check_scores(self.server, self._read(answer, "probabilities", read), count, version)

    def _start(self, timeout: float | None) -> _Time:
        seconds = timeout or self.server.timeout
        return _Time(time.monotonic() + seconds, seconds)

    def _read(self, answer: Any, expected: str, read: Callable[[Any], Read]) -> Read:
        """Reads an answer; whatever is missing or has another type makes it an answer of another form."""
        try:
            return read(answer)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise answer_error(self.server, f"JSON with {expected}", "JSON without it") from None

    def _request(self, method: str, path: str, limit: _Time, body: bytes | None = None) -> Any:
        """Sends a request and returns the JSON of the answer.

        Raises:
            ServerError: the call fails, or the answer is not JSON.
        """
        remaining = limit.end - time.monotonic()
        if remaining <= 0:
            raise self._too_late(limit)
        try:
            response = self._pool.request(
                method,
                self._base + path,
                body=body,
                headers=self._headers(),
                timeout=urllib3.Timeout(total=remaining),
                retries=self._retries(limit.end),
                redirect=False,
                preload_content=False,
            )
            content = self._read_content(response, limit)
        except urllib3.exceptions.HTTPError as error:
            raise self._connection_error(error, limit) from None
        if response.status != 200:
            raise http_error(self.server, response.status, _error_text(content), limit.seconds)
        try:
            return json.loads(content)
        except ValueError:
            raise answer_error(
                self.server, "JSON", f"{response.headers.get('content-type', 'something else')}"
            ) from None

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        return {**headers, "authorization": f"Bearer {self.server.token}"} if self.server.token else headers

    def _retries(self, deadline: float) -> _RetryUntil:
        """Returns urllib3's retries: for connections that fail or break, and for a server that is overloaded."""
        return _RetryUntil(
            self.server.retries,
            deadline=deadline,
            status_forcelist=_OVERLOADED,
            allowed_methods=None,  # all of them: every call is read-only
            backoff_factor=0.1,
            backoff_max=_MAX_PAUSE,
            backoff_jitter=0.1,
            raise_on_status=False,
            respect_retry_after_header=False,
        )

    def _read_content(self, response: urllib3.BaseHTTPResponse, limit: _Time) -> bytes:
        """Reads the body of an answer, up to a limit of bytes and until the deadline."""
        content = bytearray()
        try:
            # `read1` returns what has arrived, so that a server that sends slowly is left at the deadline.
            while block := response.read1(_BLOCK_BYTES):
                content += block
                if len(content) > _MAX_ANSWER_BYTES:
                    raise answer_error(self.server, f"at most {_MAX_ANSWER_BYTES:,} bytes", "more")
                if time.monotonic() > limit.end:
                    raise self._too_late(limit)
        except ServerError:
            response.close()
            raise
        finally:
            response.release_conn()
        return bytes(content)

    def _too_late(self, limit: _Time) -> ServerError:
        return call_error(self.server, "DEADLINE_EXCEEDED", "", limit.seconds)

    def _connection_error(self, error: Exception, limit: _Time) -> ServerError:
        """Builds the error for a connection that failed, from the last cause that urllib3 gives."""
        cause = getattr(error, "reason", None) or error
        # A refused connection is a kind of timeout for urllib3.
        timed_out = isinstance(cause, urllib3.exceptions.TimeoutError) and not isinstance(
            cause, urllib3.exceptions.NewConnectionError
        )
        return self._too_late(limit) if timed_out else call_error(self.server, "UNAVAILABLE", str(cause))


def _error_text(content: bytes) -> str:
    """Returns the server's text for an error: TensorFlow Serving sends it as JSON, a proxy as a page."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
