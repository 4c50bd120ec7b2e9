"""Runs the front end: uvicorn with the application, and the gRPC port, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from models.errors import SettingsError
from pipeline.api.application import create_application
from pipeline.api.authentication import require_protection
from pipeline.api.backends.local import LocalBackend
from pipeline.api.connection import Connection
from pipeline.api.front_door import FrontDoor
from pipeline.api.limits import describe_failure
from pipeline.api.metrics import Metrics
from pipeline.api.model_service import ModelService

if TYPE_CHECKING:
    from pipeline.api.backends.backend import Backend
    from pipeline.api.protocols.tensorflow_grpc import GrpcServer
    from tasks.settings.serving import ApiSettings

log = logging.getLogger("spamscore")

_BACKLOG = 1024
# After SIGTERM, requests that have arrived in a socket are still read and answered.
_READ_SECONDS = 0.2


def run_server(settings: ApiSettings, announce: Callable[[str], None]) -> int:
    """Answers requests until SIGTERM or ^C.

    Args:
        settings: [api].
        announce: called with the addresses, once they can be connected to.

    Returns:
        The number of requests that were not answered when the time for draining was over.

    Raises:
        SettingsError: the address cannot be listened on, or would be open to other machines without protection, or a
            file of TLS is missing or damaged.
    """
    require_protection(settings)
    metrics = Metrics()
    service = ModelService(_create_backend(settings, metrics), settings, metrics)
    application = FrontDoor(create_application(service, settings, metrics), service, settings, metrics)
    config = _configure(application, service, settings)
    listener = _listen(settings)
    grpc_server = None
    if settings.grpc_port:
        from pipeline.api.protocols.tensorflow_grpc import GrpcServer

        grpc_server = GrpcServer(service, settings, metrics)
    server = _Server(config, service, settings, grpc_server)
    scheme = "https" if settings.tls_certificate else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{scheme}://{host}:{listener.getsockname()[1]}"
    server.when_started = lambda: announce(f"listens at {address}; its API is at {address}/docs")
    server.run(sockets=[listener])
    return service.cut_off + server.unfinished


def _configure(application: FrontDoor, service: ModelService, settings: ApiSettings) -> uvicorn.Config:
    connection: Any = functools.partial(Connection, service=service, header_timeout=settings.header_timeout)
    timeouts: dict[str, Any] = {
        "timeout_keep_alive": settings.idle_timeout,
        "timeout_graceful_shutdown": settings.drain_seconds,
    }
    config = uvicorn.Config(
        application, loop="uvloop", http=connection, ws="none", lifespan="on", access_log=False, log_config=None,
        server_header=False, proxy_headers=False, backlog=_BACKLOG,
        ssl_certfile=settings.tls_certificate or None, ssl_keyfile=settings.tls_key or None,
        ssl_ca_certs=settings.tls_client_ca or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE, **timeouts,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:  # of which ssl.SSLError is one
        raise SettingsError(
            f"[api] tls_certificate, tls_key, tls_client_ca: {error.strerror or error}. Expected PEM files that belong "
            "together."
        ) from None
    return config


def _create_backend(settings: ApiSettings, metrics: Metrics) -> Backend:
    if settings.backend == "server":
        from pipeline.api.backends.server import ServerBackend

        return ServerBackend(settings, metrics)
    return LocalBackend(settings, metrics)


def _listen(settings: ApiSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"[api] host = {settings.host}, port = {settings.port}: cannot listen there: {error.strerror}. Choose "
            "another address or port, or stop the program that uses it."
        ) from None


class _Server(uvicorn.Server):
    """Adds to uvicorn: the gRPC port, and an end that loses no request.

    Attributes:
        when_started: called once it listens.
        unfinished: requests that were in progress when a second signal ended it.
    """

    when_started: Callable[[], None]

    def __init__(
        self, config: uvicorn.Config, service: ModelService, settings: ApiSettings, grpc_server: GrpcServer | None
    ) -> None:
        super().__init__(config)
        self.unfinished = 0
        self._service, self._settings, self._grpc_server = service, settings, grpc_server

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        asyncio.get_running_loop().set_exception_handler(_log_loop_error)
        await super().startup(sockets)
        if self._grpc_server:
            await self._grpc_server.start()
        self.when_started()

    async def on_tick(self, counter: int) -> bool:
        """Tells grpc.health whether messages can be scored."""
        if self._grpc_server:
            await self._grpc_server.set_ready(self._service.backend.problem() is None)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no more connections, and answers the requests that have arrived."""
        self._service.draining = True
        for server in self.servers:
            server.close()
        grpc_end = asyncio.ensure_future(self._stop_grpc())
        await asyncio.sleep(_READ_SECONDS)
        await super().shutdown(sockets)
        self.unfinished = len(self.server_state.tasks)
        if self.force_exit:
            grpc_end.cancel()
        await asyncio.wait([grpc_end])

    async def _stop_grpc(self) -> None:
        if self._grpc_server:
            await self._grpc_server.stop(self._settings.drain_seconds)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Lets SIGTERM and ^C end the server, and does not raise them again: draining is a successful end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is uvicorn's
        """Drains at the first signal, and ends at the second one."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _log_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("unexpected error in the event loop: %s", describe_failure(error) if error else context["message"])
