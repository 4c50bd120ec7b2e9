"""An HTTP connection of uvicorn, with limits on the head of a request that uvicorn does not have."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from pipeline.api.model_service import ModelService

MAX_HEAD_BYTES = 64 * 1024
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _JoinedWrites:
    """Sends the head of an answer together with its first part: apart, they would wake the client up twice."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Keeps the head, and sends everything else."""
        if self._head is None and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
        elif self._head is None:
            self._transport.write(data)
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Sends the head if nothing followed it, as for a HEAD request."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Closes the connection."""
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """Closes a connection whose client sends no complete head in time, or a head that is too large.

    A body that arrives after the answer, as after an error 413, is read for the same time, because a client that is
    still sending would not see the answer otherwise.
    """

    def __init__(self, *args: Any, service: ModelService, header_timeout: float, **options: Any) -> None:
        """Takes the arguments of uvicorn's connection and two more.

        Args:
            args: uvicorn's.
            service: says whether the front end is stopping; then each answer closes its connection.
            header_timeout: [api] header_timeout.
            options: uvicorn's.
        """
        super().__init__(*args, **options)
        self._service, self._header_timeout = service, header_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = None  # None while no head is expected

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for a head."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads data."""
        expected = self._head_bytes is not None
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        if self._head_bytes is None and self.timeout_keep_alive_task is None and self._is_idle() and not self._timer:
            self._head_bytes = 0  # the data was an empty line, or the end of a body that nobody needed
        if self._head_bytes is not None:
            self._head_bytes += len(data) if expected else 0
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
            elif self._timer is None:
                self._start_timer()

    def on_message_begin(self) -> None:
        """Expects the rest of a head."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Ends the wait for the head."""
        self._stop_timer()
        super().on_headers_complete()
        joined: Any = _JoinedWrites(self.transport)
        self.cycle.transport = joined
        self.cycle.on_response = functools.partial(self._finish, joined)
        if self._service.draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Ends the wait for a body that nobody needs."""
        if self._is_idle():
            self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Waits for the rest of the body if there is one."""
        super().on_response_complete()
        if self._is_idle() and self.cycle.more_body and self._timer is None:
            self._start_timer()

    def _finish(self, joined: _JoinedWrites) -> None:
        joined.flush()
        self.on_response_complete()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._header_timeout, self._give_up)

    def _stop_timer(self) -> None:
        self._head_bytes = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abort()
