"""Sessions: the signed cookie, and signing in and out of a front end with a token."""

from __future__ import annotations

from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import itsdangerous.timed
import pytest
from front_end import FrontEnd, Visitor, front_end
from hypothesis import given
from hypothesis import strategies as st
from page import chromium
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.pages.sessions import Session, Sessions

TOKEN = "a-token-of-24-characters"
PAGES = ("/", "/label", "/label/2026-01-31")


def make_request(cookie: str = "", url: str = "http://127.0.0.1:8000/", origin: str = "") -> Request:
    scheme, _, host = url.rstrip("/").partition("://")
    headers = [(b"host", host.encode()), (b"cookie", cookie.encode("latin-1")), (b"origin", origin.encode())]
    return Request({"type": "http", "method": "GET", "scheme": scheme, "path": "/", "headers": headers})


def write_cookie(sessions: Sessions, session: Session, url: str = "http://127.0.0.1:8000/", origin: str = "") -> str:
    """Returns the header Set-Cookie of a session."""
    response = Response()
    sessions.write(session, make_request(url=url, origin=origin), response)
    return response.headers["set-cookie"]


def read_cookie(sessions: Sessions, set_cookie: str, url: str = "http://127.0.0.1:8000/") -> Session | None:
    return sessions.read(make_request(set_cookie.partition(";")[0], url))


@given(person=st.text(max_size=255).filter(str.isprintable))
def test_a_session_is_read_as_it_was_written_and_fits_into_a_cookie(person: str) -> None:
    sessions = Sessions(TOKEN, hours=1)
    session = Session(sessions.start().csrf_token, person)
    written = write_cookie(sessions, session)
    assert read_cookie(sessions, written) == session
    assert len(written) < 4096


@pytest.mark.parametrize(
    ("url", "origin", "name"),
    [
        ("http://127.0.0.1:8000/", "", "spamscore_session_8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", "spamscore_session_8000"),
        ("https://spam.example/", "", "__Host-spamscore_session"),
        ("https://spam.example:8443/", "https://spam.example:8443", "__Host-spamscore_session_8443"),
        ("http://spam.example/", "https://spam.example", "__Host-spamscore_session"),  # behind a proxy
    ],
)
def test_scripts_and_other_sites_cannot_use_the_cookie(url: str, origin: str, name: str) -> None:
    sessions = Sessions(TOKEN, hours=2)
    written = write_cookie(sessions, session := sessions.start(), url, origin)
    [(found, cookie)] = SimpleCookie(written).items()
    assert found == name
    assert bool(cookie["secure"]) == name.startswith("__Host-")
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "strict", "/", "")
    assert cookie["max-age"] == "7200"
    assert read_cookie(sessions, written, url) == session


def test_a_session_ends_after_its_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, now = Sessions(TOKEN, hours=1), 1_800_000_000
    monkeypatch.setattr(itsdangerous.timed.time, "time", lambda: now)
    cookie = write_cookie(sessions, sessions.start())
    monkeypatch.setattr(itsdangerous.timed.time, "time", lambda: now + 3600)
    assert read_cookie(sessions, cookie) is not None
    monkeypatch.setattr(itsdangerous.timed.time, "time", lambda: now + 3601)
    assert read_cookie(sessions, cookie) is None


@given(data=st.data())
def test_a_changed_cookie_is_no_session(data: st.DataObject) -> None:
    sessions = Sessions(TOKEN, hours=1)
    name, _, value = write_cookie(sessions, Session("csrf", "ann")).partition(";")[0].partition("=")
    index = data.draw(st.integers(0, len(value) - 2))  # the last character has bits that mean nothing
    other = data.draw(st.sampled_from("abcXYZ059-_.").filter(lambda character: character != value[index]))
    changed = value[:index] + other + value[index + 1 :]
    assert sessions.read(make_request(f"{name}={changed}")) is None


@given(value=st.text(st.characters(max_codepoint=255, exclude_characters=";\r\n\0")))
def test_any_text_in_the_cookie_is_no_session(value: str) -> None:
    assert Sessions(TOKEN, hours=1).read(make_request(f"spamscore_session_8000={value}")) is None


def test_replicas_with_the_same_token_share_sessions_and_another_token_ends_them() -> None:
    cookie = write_cookie(Sessions(TOKEN, 1), Session("csrf", "ann"))
    assert read_cookie(Sessions(TOKEN, 1), cookie) == Session("csrf", "ann")
    assert read_cookie(Sessions("another token", 1), cookie) is None


def test_without_a_token_a_restart_ends_the_sessions() -> None:
    sessions = Sessions("", 1)
    cookie = write_cookie(sessions, sessions.start())
    assert read_cookie(sessions, cookie) is not None
    assert read_cookie(Sessions("", 1), cookie) is None


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[FrontEnd]:
    with front_end(trained, SPAMSCORE_API_TOKEN=TOKEN) as server:
        yield server


def sign_in(visitor: Visitor, token: str = TOKEN, next_page: str = "/") -> tuple[int, str | None]:
    """Returns status and target of the answer."""
    answer = visitor.post("/sign-in", {"token": token, "next": next_page})
    return answer.status_code, answer.headers.get("location")


@pytest.mark.parametrize("path", PAGES)
def test_a_person_who_has_not_signed_in_is_led_to_the_form_and_back(server: FrontEnd, path: str) -> None:
    visitor = Visitor(server)
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")
    form = visitor.get(answer.headers["location"])
    assert f'name="next" value="{path}"' in form.text
    assert sign_in(visitor, next_page=path) == (303, path)
    assert visitor.get("/").status_code == 200


@pytest.mark.parametrize("token", ["", "a token", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\u2615"])
def test_a_wrong_token_starts_no_session(server: FrontEnd, token: str) -> None:
    visitor = Visitor(server)
    answer = visitor.post("/sign-in", {"token": token, "next": "/"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "This is not the token of this server." in answer.text
    assert visitor.get("/").status_code == 303


@pytest.mark.parametrize(
    "address",
    ["https://evil.test/", "//evil.test", "/\\evil.test", "/label/../x", "javascript:1", "/label/2026-01-31\n"],
)
def test_signing_in_never_leads_to_another_site(server: FrontEnd, address: str) -> None:
    assert sign_in(Visitor(server), next_page=address) == (303, "/")


@pytest.mark.parametrize("path", ["/", "/label/person", "/label/2026-01-31", "/label/2026-01-31/messages", "/sign-out"])
def test_without_a_session_nothing_can_be_sent(server: FrontEnd, path: str) -> None:
    answer = Visitor(server).post(path, {"message": "win"})
    assert answer.status_code == 403
    assert "The session has ended. Reload the page." in answer.text
    assert "set-cookie" not in answer.headers


def test_after_signing_out_the_browser_has_no_session(server: FrontEnd) -> None:
    visitor = Visitor(server)
    sign_in(visitor)
    answer = visitor.post("/sign-out", {"csrf_token": visitor.csrf_token()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert visitor.get("/").status_code == 303


def test_styles_and_scripts_need_no_session(server: FrontEnd) -> None:
    for name, kind in (("page.css", "text/css"), ("message.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        answer = Visitor(server).get(f"/static/{name}")
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert Visitor(server).get("/static/%2e%2e/sessions.py").status_code == 404


def test_a_person_signs_in_by_keyboard_and_out_again(server: FrontEnd, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        page.open(f"{server.url}/label")
        assert page.value("document.activeElement.id") == "token"
        page.type("wrong")
        page.press("Enter")
        page.wait_for("document.querySelector('.problem') !== null")
        found = page.measure()
        assert (found["outside"], found["faint"]) == ([], [])
        page.type(TOKEN)
        page.press("Enter")
        page.wait_for("location.pathname == '/label'")
        assert page.value("document.cookie") == ""
        page.click("form[action='/sign-out'] button")
        page.wait_for("location.pathname == '/sign-in'")
        page.open(server.url)
        assert page.value("location.pathname") == "/sign-in"
