"""The OpenAPI document of the front end, and Swagger UI at /docs with scripts from this process alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.staticfiles import StaticFiles

from pipeline.api.protocols.predictions import MAX_EXPLAINED, PATH, PredictionAnswer, PredictionQuery, PredictionRequest
from pipeline.api.protocols.tensorflow_rest import PREFIX, VERSION_DIGITS
from tasks.settings.serving import ApiSettings

_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    400: "The request is not one of TensorFlow Serving's.",
    401: "The token is missing or wrong.",
    404: "The model, version or label is not served.",
    413: "The body is over [api] max_body_bytes.",
    422: "The request is not as described, or over [api] max_messages.",
    429: "Too many messages wait: [api] max_waiting.",
    500: "The model cannot score the messages.",
    503: "No version is loaded, the time is over ([api] timeout), or the front end stops.",
}
_COMMON_ERRORS = (401, 413, 429, 500, 503)
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>spamscore API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
# Swagger UI has its pictures in the style sheet, as data.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_documentation_router() -> APIRouter:
    """Creates the routes of Swagger UI."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def show() -> Response:
        return Response(_PAGE, media_type="text/html", headers=_HEADERS)

    @router.get("/docs/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript", headers=_HEADERS)

    return router


def add_documentation(application: FastAPI, settings: ApiSettings, model_name: str) -> None:
    """Adds /docs and the document of all paths to an application.

    Args:
        application: gets the routes; its `openapi` returns the document.
        settings: [api], whose limits the document states.
        model_name: [artifacts] model_name, which is part of paths.
    """
    application.include_router(create_documentation_router())
    application.mount("/docs", StaticFiles(packages=[("fastapi_offline", "static")]))
    application.openapi = _document_builder(application, settings, model_name)  # type: ignore[method-assign]


def _document_builder(application: FastAPI, settings: ApiSettings, model_name: str) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        if application.openapi_schema is None:
            document = get_openapi(
                title=application.title, version=application.version, description=application.description,
                routes=application.routes,
            )  # fmt: skip
            _, definitions = models_json_schema(
                [(PredictionRequest, "validation"), (PredictionAnswer, "serialization")], ref_template=_REFERENCE
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas |= definitions["$defs"] | {"Error": _object({"error": {"type": "string"}}, ["error"])}
            schemas["PredictionRequest"]["properties"]["messages"]["maxItems"] = settings.max_messages
            document["paths"] = _predictions_path() | _tensorflow_paths(model_name) | document["paths"]
            if settings.token:
                _require_token(document)
            application.openapi_schema = document
        return application.openapi_schema

    return build


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _predictions_path() -> dict[str, Any]:
    query = PredictionQuery.model_json_schema(ref_template=_REFERENCE)["properties"]
    parameters = [
        {"name": name, "in": "query", "schema": _without_null(schema), "description": schema["description"]}
        for name, schema in query.items()
    ]
    operation = {
        "tags": ["predictions"],
        "summary": "Spam probabilities of messages",
        "description": "Equal to those of a batch and of `spamscore text`. Give `version` or `label`, or neither for "
        f"the version in service. With `explain=true`, at most {MAX_EXPLAINED} messages.",
        "operationId": "predict",
        "parameters": parameters,
        "requestBody": _body({"$ref": _REFERENCE.format(model="PredictionRequest")}),
        "responses": _responses({"$ref": _REFERENCE.format(model="PredictionAnswer")}, 404, 422),
    }
    return {PATH: {"post": operation}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a parameter that is left out instead of null."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return {key: value for key, value in kinds[0].items() if key not in ("title", "description")}


def _tensorflow_paths(model_name: str) -> dict[str, Any]:
    """Describes the REST API of TensorFlow Serving for the three ways to name a version."""
    texts = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    examples = {"type": "array", "items": _object({"text": {"type": "string"}}, ["text"]), "minItems": 1}
    signature = {"type": "string", "enum": ["predict_spam"]}
    predict = _object({"signature_name": signature, "instances": texts}, ["signature_name", "instances"])
    numbers = {"type": "array", "items": {"type": "number"}}
    answers = {
        "predict": (predict, _object({"predictions": numbers}, ["predictions"])),
        "classify": (
            _object({"examples": examples}, ["examples"]),
            _object({"results": {"type": "array"}}, ["results"]),
        ),
    }
    version = _path_parameter("version", {"type": "integer", "minimum": 1, "maximum": 10**VERSION_DIGITS - 1})
    label = _path_parameter(
        "label", {"type": "string", "enum": ["stable"]}, "stable; or canary if there is a candidate."
    )
    paths: dict[str, Any] = {}
    for suffix, name, parameters in (
        ("", "", []),
        ("/versions/{version}", "_version", [version]),
        ("/labels/{label}", "_label", [label]),
    ):
        base = f"{PREFIX}/{model_name}{suffix}"
        for call, (request, answer) in answers.items():
            operation = {
                "tags": ["TensorFlow Serving"],
                "summary": f"{call.capitalize()}, as TensorFlow Serving does",
                "operationId": f"tensorflow_{call}{name}",
                "parameters": parameters,
                "requestBody": _body(request),
                "responses": _responses(answer, 400, 404),
            }
            paths[f"{base}:{call}"] = {"post": operation}
        for call, path in (("status", base), ("metadata", f"{base}/metadata")):
            operation = {
                "tags": ["TensorFlow Serving"],
                "summary": f"{call.capitalize()} of the model, as TensorFlow Serving gives it",
                "operationId": f"tensorflow_{call}{name}",
                "parameters": parameters,
                "responses": _responses({"type": "object"}, 400, 404),
            }
            paths[path] = {"get": operation}
    return paths


def _path_parameter(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _responses(answer: dict[str, Any], *errors: int) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}}
    return {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
        **{str(code): {"description": _ERRORS[code], "content": error} for code in sorted({*errors, *_COMMON_ERRORS})},
    }


def _require_token(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if path.startswith(("/v1", "/metrics")):
            for operation in operations.values():
                operation["security"] = [{"token": []}]
