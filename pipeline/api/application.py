"""The ASGI application of the front end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.api.limits import INTERNAL, ClientLeftError, Receive, RequestError, Send, read_body
from pipeline.api.pages.routes import page_router
from pipeline.api.pages.sessions import Sessions
from pipeline.api.protocols import predictions
from pipeline.api.served_hosts import list_served_hosts

if TYPE_CHECKING:
    from pipeline.api.model_service import ModelService
    from tasks.settings.serving import ApiSettings

log = logging.getLogger("spamscore")


def create_application(service: ModelService, settings: ApiSettings) -> FastAPI:
    """Creates the application: REST API, health and page.

    Args:
        service: scores and explains messages. It is `application.state.service` for the routes.
        settings: [api].
    """

    @contextlib.asynccontextmanager
    async def run_backend(_: FastAPI) -> AsyncIterator[None]:
        await service.backend.start()
        yield
        await service.backend.stop()

    application = FastAPI(title="spamscore", lifespan=run_backend, docs_url=None, redoc_url=None)
    application.state.service = service
    application.state.settings = settings
    application.include_router(page_router(service, Sessions(settings.token, settings.session_hours), settings))
    application.add_middleware(FrontDoor, service=service, settings=settings)
    # The last one is the first to see a request.
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=list_served_hosts(settings), www_redirect=False)
    return application


class FrontDoor:
    """Answers requests for predictions itself, without the routing of FastAPI, and hands on all others."""

    def __init__(self, application: Any, service: ModelService, settings: ApiSettings) -> None:
        self._application, self._service, self._settings = application, service, settings

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http" or scope["path"] != predictions.PATH or scope["method"] != "POST":
            await self._application(scope, receive, send)
            return
        try:
            body = await read_body(scope["headers"], receive, self._settings.max_body_bytes, self._settings.timeout)
            answer = await predictions.answer_predictions(self._service, body, scope["query_string"])
            await send_json(send, 200, answer)
        except RequestError as error:
            await send_error(send, error)
        except ClientLeftError:
            return
        except Exception as error:
            log.error("a request failed: %s", type(error).__name__)
            await send_error(send, RequestError(INTERNAL, "the request failed; the log of the server says why"))


async def send_json(send: Send, status: int, content: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Sends an answer in JSON."""
    length = (b"content-length", b"%d" % len(content))
    start = [(b"content-type", b"application/json"), length, *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})


async def send_error(send: Send, error: RequestError) -> None:
    """Sends an error in JSON: {"error": "…"}."""
    headers = [] if error.retry_after is None else [(b"retry-after", b"%d" % error.retry_after)]
    await send_json(send, error.status, to_json({"error": str(error)}), headers)
