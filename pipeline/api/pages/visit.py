"""One request for a page: what it holds, and how its page is rendered.

A template escapes every value, and spells out invisible characters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from models.reports.pages import SPELLED_OUT, spell_out
from pipeline.api.limits import BAD_REQUEST, FORBIDDEN, UNPROCESSABLE, RequestError
from pipeline.api.pages.sessions import Session

_MAX_FIELDS = 10


@dataclass(frozen=True)
class Visit:
    """A request for a page.

    Attributes:
        request: the request.
        session: the session of the person; None before signing in.
        can_sign_out: whether the person signed in with a token.
        body: the body of a POST.
    """

    request: Request
    session: Session | None
    can_sign_out: bool
    body: bytes = b""

    def require_session(self) -> Session:
        """Returns the session of the person.

        Raises:
            RequestError: the person has none.
        """
        if self.session is None:
            raise RequestError(FORBIDDEN, "The session has ended. Reload the page.")
        return self.session

    def read_form(self) -> dict[str, str]:
        """Returns the fields of a form. Bytes that are not UTF-8 are read as U+FFFD, and line ends as newlines.

        Raises:
            RequestError: the request has more fields than any form.
        """
        body = self.body.decode("ascii", "replace")
        try:
            fields = parse_qsl(body, keep_blank_values=True, errors="replace", max_num_fields=_MAX_FIELDS)
        except ValueError:
            raise RequestError(BAD_REQUEST, f"expected a form of at most {_MAX_FIELDS} fields, received more") from None
        return {name: value.replace("\r\n", "\n") for name, value in fields}

    def read_object(self) -> dict[str, Any]:
        """Returns a JSON object.

        Raises:
            RequestError: the body is something else, or has text that is not Unicode, which no database stores.
        """
        try:
            content = json.loads(self.body)
            json.dumps(content, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise RequestError(UNPROCESSABLE, "expected a JSON object")
        return content

    def render(self, template: str, status_code: int = 200, **values: object) -> Response:
        """Renders a template by its file name, with its values."""
        return HTMLResponse(_environment().get_template(template).render(visit=self, **values), status_code)

    def show_problem(self, problem: str, status_code: int) -> Response:
        """Returns a page that shows one problem, or a JSON object if the request has one."""
        if self.request.headers.get("content-type", "").startswith("application/json"):
            return JSONResponse({"error": problem}, status_code)
        return self.render("problem.html", status_code, problem=problem)


def split_marks(text: str) -> list[str]:
    """Spells out invisible characters and those that change the text direction.

    Returns:
        Text and [U+…] marks in turn; the first item is text.
    """
    return SPELLED_OUT.split(spell_out(text))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.api.pages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda value: spell_out(str(value))
    environment.filters["marks"] = split_marks
    return environment
