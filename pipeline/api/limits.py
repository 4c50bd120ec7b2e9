"""The limits of a request, and the error that a request over a limit gets."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_ALLOWED = 200, 400, 401, 403, 404, 405
TOO_LARGE, UNPROCESSABLE, TOO_MANY, CLIENT_LEFT, INTERNAL, UNAVAILABLE = 413, 422, 429, 499, 500, 503

FAILED = "the request failed; the log of the front end has the error"

# Most requests are answered within this time, so only later a task watches whether the client leaves.
_WATCH_SECONDS = 0.05


class RequestError(Exception):
    """A request that is not answered. Its text is sent to the client, so it contains nothing of a message.

    Attributes:
        status: status code of the HTTP answer.
        retry_after: seconds after which the client can try again; None if trying again does not help.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class ClientLeftError(Exception):
    """The client closed the connection before it had an answer."""


async def read_body(headers: Headers, receive: Receive, limit: int, seconds: float) -> bytes:
    """Reads the body of a request, and stops as soon as it is over the limit.

    Args:
        headers: of the request, with lower-case names.
        receive: the ASGI channel of the request.
        limit: [api] max_body_bytes.
        seconds: [api] timeout.

    Raises:
        RequestError: the body is too large, or does not arrive in time.
        ClientLeftError: the client left.
    """
    for name, value in headers:
        if name == b"content-length" and int(value) > limit:
            raise body_error(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        if len(body) > limit:
            raise body_error(limit)
        return body
    parts, size = [body], len(body)
    try:
        async with asyncio.timeout(seconds):
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise body_error(limit)
    except TimeoutError:
        raise timeout_error("the body did not arrive", seconds) from None
    if message["type"] == "http.disconnect":
        raise ClientLeftError
    return b"".join(parts)


def body_error(limit: int) -> RequestError:
    """Returns the error for a body over the limit."""
    return RequestError(
        TOO_LARGE, f"the body is larger than {limit:,} bytes, the limit of [api] max_body_bytes; send fewer messages"
    )


def timeout_error(problem: str, seconds: float) -> RequestError:
    """Returns the error for a request that takes too long."""
    return RequestError(UNAVAILABLE, f"{problem} within {seconds:g} seconds, the limit of [api] timeout", 1)


class Patience:
    """Ends its `async with` block when the time is over or the client leaves.

    Raises:
        RequestError: the time is over.
        ClientLeftError: the client closed the connection.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        """Waits for nothing yet.

        Args:
            receive: the ASGI channel of a request whose body was read.
            seconds: [api] timeout.
        """
        self._receive, self._seconds = receive, seconds
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._reason: Exception | None = None

    async def __aenter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._start)

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._reason and isinstance(error, asyncio.CancelledError) and self._task:
            self._task.uncancel()
            raise self._reason from None

    def _start(self) -> None:
        self._watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._seconds - _WATCH_SECONDS):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
            self._reason = ClientLeftError()
        except TimeoutError:
            self._reason = timeout_error("there is no answer", self._seconds)
        if self._task:
            self._task.cancel()


def describe_failure(error: BaseException) -> str:
    """Returns class and place of an unexpected error. Its text may quote a message, so it is left out."""
    places = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {places[-1].filename}:{places[-1].lineno}" if places else type(error).__name__
