"""The routes of the pages."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from pipeline.api.pages.guard import SIGN_IN, Guard
from pipeline.api.pages.labelling import LabellingPages
from pipeline.api.pages.message_page import MessagePage, MessageService
from pipeline.api.pages.security_headers import STATIC_HEADERS
from pipeline.api.pages.sessions import Sessions
from pipeline.api.pages.sign_in import SignInPage
from pipeline.api.served_hosts import is_loopback
from tasks.settings.serving import ApiSettings


def page_router(service: MessageService, sessions: Sessions, settings: ApiSettings) -> APIRouter:
    """Returns the routes of all pages, and of their styles and scripts.

    Args:
        service: explains messages.
        sessions: the sessions of browsers.
        settings: [api].
    """
    guard = Guard(sessions, settings)
    message, sign_in = MessagePage(service), SignInPage(sessions)
    labelling = LabellingPages(sessions, find_labelling_problem(settings))
    router = APIRouter()
    for method, path, endpoint in (
        ("GET", "/", guard(message.show)),
        ("POST", "/", guard(message.answer)),
        ("GET", SIGN_IN, guard(sign_in.show, public=True)),
        ("POST", SIGN_IN, guard(sign_in.sign_in, public=True)),
        ("POST", "/sign-out", guard(sign_in.sign_out)),
        ("GET", "/label", guard(labelling.list_dates)),
        ("POST", "/label/person", guard(labelling.set_person)),
        ("GET", "/label/{date}", guard(labelling.show)),
        ("POST", "/label/{date}", guard(labelling.store)),
        ("POST", "/label/{date}/messages", guard(labelling.find_messages)),
    ):
        router.add_route(path, endpoint, methods=[method], include_in_schema=False)
    router.mount("/static", _Files(directory=Path(__file__).with_name("static")), name="static")
    return router


def find_labelling_problem(settings: ApiSettings) -> str | None:
    """Returns why nobody can label messages, whose texts the page shows; None if people can."""
    if not settings.labelling:
        return "Labelling is switched off: [api] labelling = false."
    if not (settings.token or settings.tls_client_ca or is_loopback(settings.host)):
        return (
            "Labelling shows messages of people, and this server answers everybody. Set [api] token, or let it listen "
            "on 127.0.0.1 only."
        )
    return None


class _Files(StaticFiles):
    """Styles, scripts and the icon."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Returns a file with the headers of static files."""
        response = await super().get_response(path, scope)
        response.headers.update(STATIC_HEADERS)
        return response
