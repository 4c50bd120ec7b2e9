"""Answers the REST APIs, and hands on all other requests to FastAPI, whose routing takes as long as a score."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_core import to_json

from pipeline.api.authentication import Authentication
from pipeline.api.limits import (
    CLIENT_LEFT,
    FAILED,
    INTERNAL,
    NOT_ALLOWED,
    OK,
    UNAUTHORIZED,
    UNAVAILABLE,
    ClientLeftError,
    Headers,
    Message,
    Patience,
    Receive,
    RequestError,
    Send,
    body_error,
    describe_failure,
    read_body,
)
from pipeline.api.protocols import predictions, tensorflow_rest

if TYPE_CHECKING:
    from pipeline.api.metrics import Metrics
    from pipeline.api.model_service import ModelService
    from tasks.settings.serving import ApiSettings

log = logging.getLogger("spamscore")

# Of the paths of FastAPI, those that need the token. The pages have sessions; health and the documentation are public.
_PROTECTED = ("/metrics", "/v1")
# A probe addresses the machine by a number.
_PROBES = ("/livez", "/readyz")


class RestProtocol(Protocol):
    """A REST API: what it answers to a path, query and body."""

    name: str

    def methods(self, path: str) -> tuple[str, ...]:
        """Returns the methods of a path."""

    def call(self, path: str) -> str:
        """Returns the name of the call, for the metrics."""

    def status(self, error: RequestError) -> int:
        """Returns the status code of an error."""

    async def answer(self, path: str, query: bytes, body: bytes) -> bytes:
        """Returns the answer in JSON, or raises RequestError."""


class FrontDoor:
    """The ASGI application that the server runs: authentication, limits, errors and metrics of every request."""

    def __init__(self, application: Any, service: ModelService, settings: ApiSettings, metrics: Metrics) -> None:
        self._application, self._settings, self._metrics = application, settings, metrics
        self._authentication = Authentication(settings)
        self._predictions: RestProtocol = predictions.Predictions(service)
        self._tensorflow: RestProtocol = tensorflow_rest.TensorFlowRest(service)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        start, path = time.perf_counter(), scope["path"]
        if path == predictions.PATH:
            protocol = self._predictions
        elif path.lower().startswith(tensorflow_rest.PREFIX):
            protocol = self._tensorflow
        else:
            status = await self._hand_on(scope, receive, send)
            self._metrics.count_request("other", "other", status, time.perf_counter() - start)
            return
        status = await self._answer(protocol, scope, receive, send)
        self._metrics.count_request(protocol.name, protocol.call(path), status, time.perf_counter() - start)

    async def _answer(self, protocol: RestProtocol, scope: Any, receive: Receive, send: Send) -> int:
        """Answers a request of a REST API, and returns the status code."""
        path, headers = scope["path"], scope["headers"]
        try:
            self._authentication.check_headers(headers)
            if scope["method"] not in (methods := protocol.methods(path)):
                raise _MethodError(methods)
            body = await read_body(headers, receive, self._settings.max_body_bytes, self._settings.timeout)
            async with Patience(receive, self._settings.timeout):
                content = await protocol.answer(path, scope["query_string"], body)
            await send_json(send, OK, content)
            return OK
        except RequestError as error:
            status = protocol.status(error)
            await send_error(send, error, status)
            return status
        except ClientLeftError:
            return CLIENT_LEFT
        except asyncio.CancelledError:
            return await _send_stopping(send)
        except Exception as error:
            log.error("a request to %s failed: %s", protocol.name, describe_failure(error))
            await send_error(send, RequestError(INTERNAL, FAILED), INTERNAL)
            return INTERNAL

    async def _hand_on(self, scope: Any, receive: Receive, send: Send) -> int:
        """Lets FastAPI answer a request within the limits, and returns the status code."""
        status, limit, received = 0, self._settings.max_body_bytes, 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise body_error(limit)
            return message

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in _PROBES:
                needs_token = scope["path"].startswith(_PROTECTED)
                self._authentication.check_headers(scope["headers"], needs_token)
            await self._application(scope, receive_limited, send_noted)
        except RequestError as error:
            if not status:
                await send_error(send_noted, error, error.status)
        except asyncio.CancelledError:
            return await _send_stopping(send)
        except Exception as error:
            log.error("a request failed: %s", describe_failure(error))
            if status:
                raise ClientLeftError from None  # the answer is cut off, and uvicorn closes the connection
            await send_error(send_noted, RequestError(INTERNAL, FAILED), INTERNAL)
        return status or CLIENT_LEFT


class _MethodError(RequestError):
    """A request with a method that its path does not have."""

    def __init__(self, methods: tuple[str, ...]) -> None:
        super().__init__(NOT_ALLOWED, f"expected the method {' or '.join(methods)}")
        self.methods = methods


async def send_json(send: Send, status: int, content: bytes, headers: Headers | None = None) -> None:
    """Sends an answer in JSON."""
    start = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"x-content-type-options", b"nosniff"),
        *(headers or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})


async def send_error(send: Send, error: RequestError, status: int) -> None:
    """Sends an error in JSON: {"error": "…"}."""
    headers: Headers = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, _MethodError):
        headers.append((b"allow", ", ".join(error.methods).encode()))
    if status == UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send_json(send, status, to_json({"error": str(error)}), headers)


async def _send_stopping(send: Send) -> int:
    """Ends a request that was cancelled because the time for draining is over."""
    await send_error(send, RequestError(UNAVAILABLE, "the front end stops: [api] drain_seconds are over"), UNAVAILABLE)
    return UNAVAILABLE
