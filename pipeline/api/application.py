"""The FastAPI application of the front end: health, metrics, documentation and pages.

`pipeline.api.front_door` stands before it and answers the REST APIs.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline.api.documentation import add_documentation
from pipeline.api.health import create_health_router
from pipeline.api.limits import FAILED, INTERNAL, UNPROCESSABLE, RequestError
from pipeline.api.pages.routes import page_router
from pipeline.api.pages.sessions import Sessions
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings

if TYPE_CHECKING:
    from pipeline.api.metrics import Metrics
    from pipeline.api.model_service import ModelService
    from tasks.settings.serving import ApiSettings

_DESCRIPTION = "Spam probabilities of text messages, from the model version that is in service."


def create_application(service: ModelService, settings: ApiSettings, metrics: Metrics) -> FastAPI:
    """Creates the application.

    Args:
        service: scores and explains messages.
        settings: [api].
        metrics: counts requests.
    """

    @contextlib.asynccontextmanager
    async def run_backend(_: FastAPI) -> AsyncIterator[None]:
        await service.backend.start()
        yield
        await service.backend.stop()

    application = FastAPI(
        title="spamscore", version=version("spamscore"), description=_DESCRIPTION, lifespan=run_backend,
        docs_url=None, redoc_url=None, exception_handlers=_EXCEPTION_HANDLERS,
    )  # fmt: skip
    application.include_router(create_health_router(service, metrics))
    application.include_router(page_router(service, Sessions(settings.token, settings.session_hours), settings))
    add_documentation(application, settings, load(ArtifactSettings).model_name)
    return application


async def _answer_http_exception(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _answer_request_error(_: Request, error: RequestError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, error.status)


async def _answer_validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's own answer would repeat the request."""
    problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
    return JSONResponse({"error": "; ".join(problems)}, UNPROCESSABLE)


async def _answer_unexpected_error(_: Request, __: Exception) -> JSONResponse:
    """The front door logs the error."""
    return JSONResponse({"error": FAILED}, INTERNAL)


_EXCEPTION_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    HTTPException: _answer_http_exception,
    RequestError: _answer_request_error,
    RequestValidationError: _answer_validation_error,
    Exception: _answer_unexpected_error,
}
