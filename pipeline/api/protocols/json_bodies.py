"""Parses JSON bodies. Errors name the place and the type of a value, and never contain a value."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from pipeline.api.limits import RequestError

JSON_TYPES = {
    dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false",
    type(None): "null",
}  # fmt: skip


def parse_json(body: bytes, status: int) -> Any:
    """Parses a body.

    Raises:
        RequestError: it is not JSON in UTF-8; with the status.
    """
    try:
        # The default would keep texts of messages in a cache.
        return from_json(body, cache_strings="keys")
    except ValueError as error:
        raise RequestError(status, f"body: expected JSON in UTF-8, but {error}") from None
