"""The limits of a request, and the error that a request over a limit gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_LARGE, UNPROCESSABLE = 400, 401, 403, 404, 413, 422
TOO_MANY, INTERNAL, UNAVAILABLE = 429, 500, 503


class RequestError(Exception):
    """A request that is not answered. Its text is sent to the client, so it holds nothing of a message.

    Attributes:
        status: status code of the HTTP answer.
        retry_after: seconds after which the client can try again; None if trying again does not help.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class ClientLeftError(Exception):
    """The client closed the connection before it had an answer."""


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive, limit: int, seconds: float) -> bytes:
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
            raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        if len(body) > limit:
            raise _too_large(limit)
        return body
    parts, size = [body], len(body)
    try:
        async with asyncio.timeout(seconds):
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise RequestError(
            UNAVAILABLE, f"the body did not arrive within {seconds:g} seconds, the limit of [api] timeout"
        ) from None
    if message["type"] == "http.disconnect":
        raise ClientLeftError
    return b"".join(parts)


def _too_large(limit: int) -> RequestError:
    return RequestError(
        TOO_LARGE, f"the body is larger than {limit:,} bytes, the limit of [api] max_body_bytes; send fewer messages"
    )
