"""The pages at /sign-in and /sign-out: a person gives the token once, and the session replaces it."""

from __future__ import annotations

import re

from starlette.responses import RedirectResponse, Response

from pipeline.api.pages.sessions import Sessions
from pipeline.api.pages.visit import Visit

# Pages to which a person can be sent back. Any other address may belong to another site.
_OWN_PAGE = re.compile(r"/(label(/\d{4}-\d\d-\d\d)?)?")


class SignInPage:
    """The form for the token, and the button that ends the session.

    Args:
        sessions: the sessions of browsers.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def show(self, visit: Visit) -> Response:
        """Shows the form, or returns to the page if the person is signed in."""
        next_page = choose_next_page(visit.request.query_params.get("next", ""))
        if visit.session is not None:
            return RedirectResponse(next_page, 303)
        return visit.render("sign_in.html", next_page=next_page, refused=False)

    async def sign_in(self, visit: Visit) -> Response:
        """Starts a session if the token is right, and returns to the page that asked for it."""
        form = visit.read_form()
        next_page = choose_next_page(form.get("next", ""))
        if not self._sessions.accepts(form.get("token", "").strip()):
            return visit.render("sign_in.html", 403, next_page=next_page, refused=True)
        response = RedirectResponse(next_page, 303)
        self._sessions.write(self._sessions.start(), visit.request, response)
        return response

    async def sign_out(self, visit: Visit) -> Response:
        """Ends the session."""
        response = RedirectResponse("/sign-in", 303)
        self._sessions.end(visit.request, response)
        return response


def choose_next_page(address: str) -> str:
    """Returns the path of a page of this server, or / for any other address."""
    return address if _OWN_PAGE.fullmatch(address) else "/"
