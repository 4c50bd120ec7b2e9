"""The routes /livez, /readyz and /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from pipeline.api.limits import OK, UNAVAILABLE
from pipeline.api.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from pipeline.api.model_service import ModelService


class Liveness(BaseModel):
    """The process answers."""

    alive: bool


class Readiness(BaseModel):
    """Whether messages can be scored now.

    `warning` says what an operator should correct although messages are scored, as a new version that cannot be loaded.
    """

    ready: bool
    problem: str | None
    warning: str | None


def create_health_router(service: ModelService, metrics: Metrics) -> APIRouter:
    """Creates the routes.

    Args:
        service: its backend is ready or not.
        metrics: content of /metrics.
    """
    router = APIRouter(tags=["operation"])
    not_ready: dict[int | str, dict[str, Any]] = {
        UNAVAILABLE: {"model": Readiness, "description": "Messages cannot be scored."}
    }

    @router.get("/livez", summary="Whether the process answers")
    async def livez() -> Liveness:
        return Liveness(alive=True)

    @router.get("/readyz", summary="Whether messages can be scored, or why not", responses=not_ready)
    async def readyz(response: Response) -> Readiness:
        problem = "the front end stops" if service.draining else service.backend.problem()
        response.status_code = UNAVAILABLE if problem else OK
        return Readiness(ready=problem is None, problem=problem, warning=service.backend.warning())

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses={200: _METRICS})
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return router


_METRICS: dict[str, Any] = {
    "description": "Metrics in the text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
