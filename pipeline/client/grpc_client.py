"""Asks a model server over gRPC: TensorFlow Serving, or the front end.

gRPC itself keeps the connection, reconnects, applies the deadline, and repeats calls that the server did not take. All
calls are read-only, so a repeated call changes nothing; it is repeated only if the server is unreachable or overloaded.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pipeline.client import messages
from pipeline.client.failures import call_error
from pipeline.client.protocol import grpc, grpc_aio, model_service_pb2_grpc, prediction_service_pb2_grpc
from pipeline.client.server import Metadata, ModelServer, Scores, VersionStatus, encode, read_pem, tls_context

_MAX_ANSWER_BYTES = 64 * 2**20
Answer = TypeVar("Answer")


class GrpcClient:
    """A connection to a model server; several threads may use it. See `server.Client` for the methods."""

    def __init__(self, server: ModelServer) -> None:
        """Prepares the connection. It is made by the first call, and again whenever it is lost.

        Raises:
            SettingsError: a file of TLS is missing or damaged.
        """
        self.server = server
        self._channel = _open_channel(grpc, server)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def predict(self, texts: Sequence[str], timeout: float | None = None) -> Scores:
        """Returns the spam probabilities of messages, by the signature predict_spam.

        Raises:
            ServerError: the call fails.
        """
        request = messages.predict_request(self.server, encode(texts))
        response = self._call(self._predictions.Predict, request, timeout)
        return messages.read_predict_response(self.server, response, len(texts))

    def classify(self, texts: Sequence[str], timeout: float | None = None) -> Scores:
        """Returns the spam probabilities of messages, by the default signature, which classifies `tf.Example`.

        Raises:
            ServerError: the call fails.
        """
        request = messages.classify_request(self.server, encode(texts))
        response = self._call(self._predictions.Classify, request, timeout)
        return messages.read_classify_response(self.server, response, len(texts))

    def status(self, timeout: float | None = None) -> list[VersionStatus]:
        """Returns the versions of the model that the server knows, ascending.

        Raises:
            ServerError: the call fails.
        """
        request = messages.status_request(self.server)
        return messages.read_status_response(self._call(self._models.GetModelStatus, request, timeout))

    def metadata(self, timeout: float | None = None) -> Metadata:
        """Returns the version that answers now, and its signatures.

        Raises:
            ServerError: the call fails.
        """
        request = messages.metadata_request(self.server)
        response = self._call(self._predictions.GetModelMetadata, request, timeout)
        return messages.read_metadata_response(self.server, response)

    def _call(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        with _reported(self.server, timeout):
            return method(request, timeout=timeout or self.server.timeout, metadata=_call_metadata(self.server))


class AsyncGrpcClient:
    """A connection to a model server for asyncio, with the calls that a front end makes. Belongs to one event loop."""

    def __init__(self, server: ModelServer) -> None:
        """Prepares the connection, as `GrpcClient` does; call it in the event loop.

        Raises:
            SettingsError: a file of TLS is missing or damaged.
        """
        self.server = server
        self._channel = _open_channel(grpc_aio, server)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    async def __aenter__(self) -> AsyncGrpcClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def asking(self, version: int | None, label: str | None) -> AsyncGrpcClient:
        """Returns a client that asks for another version or label over the same connection."""
        other = copy.copy(self)
        other.server = dataclasses.replace(self.server, version=version, label=label)
        return other

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def predict(self, texts: Sequence[str], timeout: float | None = None) -> Scores:
        """Returns the spam probabilities of messages, by the signature predict_spam.

        Raises:
            ServerError: the call fails.
        """
        request = messages.predict_request(self.server, encode(texts))
        response = await self._call(self._predictions.Predict, request, timeout)
        return messages.read_predict_response(self.server, response, len(texts))

    async def status(self, timeout: float | None = None) -> list[VersionStatus]:
        """Returns the versions of the model that the server knows, ascending.

        Raises:
            ServerError: the call fails.
        """
        request = messages.status_request(self.server)
        return messages.read_status_response(await self._call(self._models.GetModelStatus, request, timeout))

    async def metadata(self, timeout: float | None = None) -> Metadata:
        """Returns the version that answers now, and its signatures.

        Raises:
            ServerError: the call fails.
        """
        request = messages.metadata_request(self.server)
        response = await self._call(self._predictions.GetModelMetadata, request, timeout)
        return messages.read_metadata_response(self.server, response)

    async def _call(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        with _reported(self.server, timeout):
            return await method(request, timeout=timeout or self.server.timeout, metadata=_call_metadata(self.server))


@contextlib.contextmanager
def _reported(server: ModelServer, timeout: float | None) -> Iterator[None]:
    """Turns the exceptions of gRPC into ServerError."""
    try:
        yield
    except grpc.RpcError as error:
        raise call_error(server, error.code().name, error.details() or "", timeout) from None


def _call_metadata(server: ModelServer) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {server.token}"),) if server.token else ()


def _open_channel(library: Any, server: ModelServer) -> Any:
    """Opens a channel of `grpc`, or of `grpc.aio`, which have the same functions."""
    credentials, options = _credentials(server), _channel_options(server)
    if credentials:
        return library.secure_channel(server.address, credentials, options)
    return library.insecure_channel(server.address, options)


def _credentials(server: ModelServer) -> Any:
    """Returns the credentials for TLS; None without TLS."""
    if tls_context(server) is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=read_pem(server.ca_file),
        private_key=read_pem(server.key_file),
        certificate_chain=read_pem(server.certificate_file),
    )


def _channel_options(server: ModelServer) -> list[tuple[str, Any]]:
    """Returns the options of a channel: balancing, retries, limits and reconnection.

    If the name of the server has several addresses, as a headless Service of Kubernetes, calls go to them in turn.

    gRPC adds jitter to the pauses, and makes no attempt after the deadline. After five failed attempts it makes only
    the first attempt of a call, until calls succeed again (retryThrottling): retries must not keep a server overloaded.
    """
    retry = {
        "maxAttempts": server.retries + 1,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }
    method: dict[str, Any] = {"name": [{}], **({"retryPolicy": retry} if server.retries else {})}
    service = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [method],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
    return [
        ("grpc.service_config", json.dumps(service)),
        ("grpc.enable_retries", int(server.retries > 0)),
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        # A server that was restarted is found again after at most two seconds, not two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.min_reconnect_backoff_ms", 5000),  # despite its name, how long one attempt to connect may take
        # Finds a connection whose other end is gone. Servers of gRPC accept one ping in five minutes.
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Each client has its own connection, with its own limits.
        ("grpc.use_local_subchannel_pool", 1),
    ]
