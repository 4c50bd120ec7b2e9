"""Runs the front end: uvicorn with the application, until a signal ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.settings.serving import ApiSettings


def run_server(settings: ApiSettings) -> None:
    """Answers requests until SIGTERM or ^C."""
    import uvicorn

    from pipeline.api.application import create_application
    from pipeline.api.backends.local import LocalBackend
    from pipeline.api.model_service import ModelService

    service = ModelService(LocalBackend(settings), settings)
    uvicorn.run(
        create_application(service, settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
    )
