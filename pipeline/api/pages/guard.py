"""Stands before every page: sign-in, forged requests, errors, and the headers of the response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from models.errors import DatabaseError, InputError, SpamscoreError
from pipeline.api.limits import BAD_REQUEST, FORBIDDEN, UNAVAILABLE, ClientLeftError, RequestError, read_body
from pipeline.api.pages.cross_site import CSRF_FIELD, CSRF_HEADER, comes_from_own_page, has_csrf_token
from pipeline.api.pages.security_headers import PAGE_HEADERS
from pipeline.api.pages.sessions import Sessions
from pipeline.api.pages.visit import Visit
from tasks.settings.serving import ApiSettings

Page = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

SIGN_IN = "/sign-in"
_ARRIVED = "arrived"
_CONFLICT = 409
_STATUSES: dict[type[SpamscoreError], int] = {InputError: _CONFLICT, DatabaseError: UNAVAILABLE}


class Guard:
    """Turns a page into an endpoint that only people who may use the page can reach.

    Args:
        sessions: the sessions of browsers.
        settings: [api].
    """

    def __init__(self, sessions: Sessions, settings: ApiSettings) -> None:
        self._sessions, self._settings = sessions, settings

    def __call__(self, page: Page, public: bool = False) -> Endpoint:
        """Returns the endpoint of a page; a public one can be used without a session."""

        async def respond(request: Request) -> Response:
            session, started = self._sessions.read(request), None
            arrives = session is None and _arrives(request)
            # Not on a POST: it may be forged, and its answer would replace the session of the person.
            if session is None and not arrives and not self._sessions.needs_token and request.method != "POST":
                session = started = self._sessions.start()
            visit = Visit(request, session, can_sign_out=session is not None and self._sessions.needs_token)
            if arrives:
                response = visit.render("arrival.html", arrived=_ARRIVED)
            else:
                response = await self._respond(page, visit, public)
            if started:
                self._sessions.write(started, request, response)
            for name, value in PAGE_HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return respond

    async def _respond(self, page: Page, visit: Visit, public: bool) -> Response:
        request = visit.request
        if visit.session is None and not public and request.method != "POST":
            return RedirectResponse(f"{SIGN_IN}?next={quote(request.url.path)}", 303)
        try:
            if request.method == "POST":
                visit = await self._receive(visit, public)
            return await page(visit)
        except RequestError as error:
            return visit.show_problem(str(error), error.status)
        except SpamscoreError as error:
            return visit.show_problem(str(error), _STATUSES.get(type(error), UNAVAILABLE))
        except ClientLeftError:
            return Response(status_code=BAD_REQUEST)

    async def _receive(self, visit: Visit, public: bool) -> Visit:
        """Reads the body of a POST.

        Raises:
            RequestError: a page of another site may have caused the request, or the session has ended.
        """
        request, settings = visit.request, self._settings
        if not comes_from_own_page(request):
            raise RequestError(FORBIDDEN, "The request does not come from a page of this server. Open the page again.")
        body = await read_body(
            request.scope["headers"], request.receive, settings.max_body_bytes, settings.timeout
        )  # fmt: skip
        visit = replace(visit, body=body)
        if not public:
            session = visit.require_session()
            token = request.headers.get(CSRF_HEADER) or visit.read_form().get(CSRF_FIELD, "")
            if not has_csrf_token(session, token):
                raise RequestError(FORBIDDEN, "The page belongs to a session that has ended. Reload the page.")
        return visit


def _arrives(request: Request) -> bool:
    """Returns whether a link on a page of another site leads here.

    The browser leaves out the cookie of the session then. A page that opens itself again gets it.
    """
    from_other_site = request.headers.get("sec-fetch-site") == "cross-site"
    return from_other_site and request.method != "POST" and request.url.query != _ARRIVED
