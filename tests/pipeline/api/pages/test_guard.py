"""Attacks on the pages: forged requests, rebinding, framing; in Chromium and with requests made by hand."""

from __future__ import annotations

import datetime
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chain import query
from eventually import eventually
from front_end import FrontEnd, Visitor, front_end
from page import Page

from pipeline.api.pages.security_headers import PAGE_HEADERS

DATE = datetime.date(2026, 1, 31)
PAGES = ("/", "/label", f"/label/{DATE}")
LABEL = {"message_id": "m-01", "label": "spam"}


@pytest.fixture(scope="module")
def server(trained: Path, publish_messages: Callable[..., dict[str, str]]) -> Iterator[FrontEnd]:
    publish_messages(DATE)
    with front_end(trained) as server:
        yield server


@pytest.fixture
def ann(server: FrontEnd) -> tuple[Visitor, str]:
    """A browser in which ann labels messages, and the token of its pages."""
    visitor = Visitor(server)
    token = visitor.csrf_token()
    assert visitor.post("/label/person", {"csrf_token": token, "person": "ann"}).status_code == 303
    return visitor, token


class Evil:
    """Another site: serves one page, at any path and under any name in .test.

    Attributes:
        content: HTML of the page.
        port: its port on loopback.
    """

    def __init__(self, port: int) -> None:
        self.content, self.port = "", port

    def show(self, page: Page, content: str) -> None:
        """Opens a page of the site in the browser."""
        self.content = content
        page.open(f"http://evil.test:{self.port}/")


@pytest.fixture
def evil() -> Iterator[Evil]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(site.content.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        site = Evil(listener.server_address[1])
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield site
        listener.shutdown()


def read_labels(folder: Path) -> list[tuple[object, ...]]:
    return query(folder, "select message_id, label, labelled_by from labels")


def test_a_page_stores_a_label_for_the_person_of_the_session(
    server: FrontEnd, trained: Path, ann: tuple[Visitor, str]
) -> None:
    visitor, token = ann
    for label, previous in (("spam", "none"), ("ham", "spam")):
        content = {"message_id": "m-02", "label": label}
        answer = visitor.post_json(f"/label/{DATE}", content, **{"X-CSRF-Token": token})
        assert (answer.status_code, answer.json()) == (200, {"previous": previous})
        assert ("m-02", label, "ann") in read_labels(trained)


OWN = "own origin"  # replaced by that of the server
FORGED = [
    {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.test", "Sec-Fetch-Site": ""},
    {"Origin": "null", "Sec-Fetch-Site": ""},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": ""},
    {"Origin": OWN, "Sec-Fetch-Site": "cross-site"},
    {"Origin": OWN, "Sec-Fetch-Site": "same-site"},
    {"Origin": "", "Sec-Fetch-Site": "none"},
    {"Origin": "", "Sec-Fetch-Site": ""},
    {"Origin": "http://", "Sec-Fetch-Site": ""},
    {"X-CSRF-Token": ""},
    {"X-CSRF-Token": "another"},
    {"X-CSRF-Token": "\u00e9"},
]


@pytest.mark.parametrize("headers", FORGED, ids=str)
def test_a_forged_request_changes_nothing(
    server: FrontEnd, trained: Path, ann: tuple[Visitor, str], headers: dict[str, str]
) -> None:
    visitor, token = ann
    sent = {"X-CSRF-Token": token, **{name: server.url if value == OWN else value for name, value in headers.items()}}
    answer = visitor.post_json(f"/label/{DATE}", LABEL, **{key: value.encode() for key, value in sent.items()})
    assert (answer.status_code, list(answer.json())) == (403, ["error"])
    assert ("m-01", "spam", "ann") not in read_labels(trained)
    assert "set-cookie" not in answer.headers


def test_the_token_of_another_session_is_refused(server: FrontEnd, ann: tuple[Visitor, str]) -> None:
    visitor, _ = ann
    token = Visitor(server).csrf_token()
    assert visitor.post_json(f"/label/{DATE}", LABEL, **{"X-CSRF-Token": token}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/label/person", "/sign-in", "/sign-out", f"/label/{DATE}/messages"])
def test_a_form_of_another_site_is_refused_by_every_page(server: FrontEnd, ann: tuple[Visitor, str], path: str) -> None:
    visitor, token = ann
    fields = {"csrf_token": token, "person": "eve", "message": "win", "token": ""}
    answer = visitor.post(path, fields, **{"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "does not come from a page of this server" in answer.text


def test_a_form_that_another_site_sends_in_a_browser_changes_nothing(
    server: FrontEnd, trained: Path, page: Page, evil: Evil
) -> None:
    sign_in_as(page, server, "ann")
    evil.show(page, f'<form method="post" action="{server.url}/label/person"><input name="person" value="eve"></form>')
    page.value("document.forms[0].submit()")
    page.wait_for("document.getElementById('problem') !== null")
    page.open(f"{server.url}/label/{DATE}")
    assert page.value("document.querySelector('main').dataset.person") == "ann"


def sign_in_as(page: Page, server: FrontEnd, person: str) -> None:
    page.open(f"{server.url}/label/{DATE}")
    page.type(person)
    page.press("Enter")
    page.wait_for("document.getElementById('card') && !document.getElementById('card').hidden")


def test_a_link_on_another_site_keeps_the_session(server: FrontEnd, page: Page, evil: Evil) -> None:
    sign_in_as(page, server, "ann")
    evil.show(page, f'<a href="{server.url}/label/{DATE}">label messages</a>')
    page.click("a")
    page.wait_for("document.querySelector('main') !== null")
    assert page.value("document.querySelector('main').dataset.person") == "ann"


def test_another_site_cannot_read_a_page_or_run_its_scripts(server: FrontEnd, page: Page, evil: Evil) -> None:
    evil.show(
        page,
        f"<script>fetch('{server.url}/', {{credentials: 'include'}})"
        ".then(() => out = 'read', () => out = 'refused')</script>"
        f'<script src="{server.url}/static/message.js" onload="script = 1" onerror="script = 0"></script>',
    )
    assert page.wait_for("window.out") == "refused"
    assert page.value("script") == 0


def test_no_page_is_shown_in_a_frame(server: FrontEnd, page: Page, evil: Evil) -> None:
    evil.content = f'<iframe src="{server.url}/label"></iframe>'
    page.open(f"http://127.0.0.1:{evil.port}/")  # in the process of the page, so that the browser lists the frame
    assert eventually(page.list_frames) == [{"url": f"{server.url}/label", "refused": True}]


def test_a_page_of_the_same_host_on_another_port_can_neither_read_nor_send(
    server: FrontEnd, trained: Path, page: Page, evil: Evil
) -> None:
    sign_in_as(page, server, "ann")
    evil.content = (
        "<script>const send = (path, options) => fetch(path, {credentials: 'include', ...options});"
        f"send('{server.url}/').then(() => out = 'read', () => out = 'refused');"
        f"send('{server.url}/label/person', {{method: 'POST', mode: 'no-cors', body: 'person=eve', headers: "
        "{'Content-Type': 'application/x-www-form-urlencoded'}}).finally(() => sent = 1)</script>"
    )
    page.open(f"http://127.0.0.1:{evil.port}/")
    assert page.wait_for("window.out") == "refused"
    page.wait_for("window.sent")
    page.open(f"{server.url}/label/{DATE}")
    assert page.value("document.querySelector('main').dataset.person") == "ann"


@pytest.mark.parametrize("path", [*PAGES, "/static/page.css", "/v1/predictions"])
@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:{port}", "127.0.0.1.evil.test:{port}", "localhost.:{port}", ""]
)
def test_a_request_for_another_host_is_refused(server: FrontEnd, path: str, host: str) -> None:
    host = host.format(port=server.port)
    assert Visitor(server).get(path, Host=host or "@").status_code == 400


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_the_names_of_loopback_are_served(server: FrontEnd, name: str) -> None:
    assert Visitor(server).get("/", Host=f"{name}:{server.port}").status_code == 200


def test_a_name_that_is_rebound_to_loopback_reads_nothing(server: FrontEnd, page: Page) -> None:
    page.open(f"http://rebound.test:{server.port}/label")
    assert "the header Host has a name that is not served" in page.value("document.body.innerText")


@pytest.mark.parametrize("path", [*PAGES, "/label/yesterday", "/sign-in"])
def test_every_page_has_the_security_headers(server: FrontEnd, path: str) -> None:
    found = Visitor(server).get(path).headers
    assert {name: found.get(name) for name in PAGE_HEADERS} == PAGE_HEADERS


def test_a_page_runs_no_script_that_it_does_not_load(server: FrontEnd, page: Page) -> None:
    page.open(server.url)
    for code in (
        "document.head.append(Object.assign(document.createElement('script'), {textContent: 'owned = 1'}))",
        "setTimeout('owned = 1')",
        "document.body.innerHTML = '<img src=x onerror=\"owned = 1\">'",
        "document.body.append(Object.assign(document.createElement('a'), {href: 'javascript:owned = 1', id: 'a'}))",
        "document.getElementById('a').click()",
    ):
        page.value(f"(() => {{ try {{ {code}; return 'ran' }} catch (e) {{ return e.name }} }})()")
    assert page.value("typeof owned") == "undefined"
    assert page.value("document.querySelector('img[onerror]')") is None


def test_a_body_over_the_limit_is_refused(server: FrontEnd, ann: tuple[Visitor, str]) -> None:
    visitor, token = ann
    answer = visitor.post("/", "message=" + "x" * (8 * 2**20), **{"X-CSRF-Token": token})
    assert answer.status_code == 413
    assert "[api] max_body_bytes" in answer.text


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        (f"/label/{DATE}", [], 422),
        (f"/label/{DATE}", {"message_id": 1, "label": "spam"}, 422),
        (f"/label/{DATE}", {"message_id": "m-01", "label": "eggs"}, 422),
        (f"/label/{DATE}", {"message_id": "m-01", "label": ["spam"]}, 422),
        (f"/label/{DATE}", {"message_id": "\ud800", "label": "spam"}, 422),
        (f"/label/{DATE}", {"message_id": "none such", "label": "spam"}, 409),
        (f"/label/{DATE}", {"message_id": "x" * 256, "label": "spam"}, 409),
        (f"/label/{DATE}", {"message_id": "m-01\0", "label": "spam"}, 409),
        ("/label/2026-02-31", LABEL, 404),
        ("/label/20260131", LABEL, 404),
        ("/label/2025-01-01", LABEL, 409),
        (f"/label/{DATE}/messages", {"round": "0"}, 422),
    ],
    ids=str,
)
def test_a_request_that_no_page_sends_is_refused_with_the_reason(
    server: FrontEnd, trained: Path, ann: tuple[Visitor, str], path: str, content: object, status: int
) -> None:
    visitor, token = ann
    before = read_labels(trained)
    answer = visitor.post_json(path, content, **{"X-CSRF-Token": token})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert read_labels(trained) == before


def test_nothing_of_a_message_or_a_token_is_logged(trained: Path, tmp_path: Path) -> None:
    with front_end(trained, SPAMSCORE_API_TOKEN="a-secret-token") as server:
        visitor = Visitor(server)
        visitor.post("/sign-in", {"token": "a-secret-token", "next": "/"})
        assert visitor.post("/", {"csrf_token": visitor.csrf_token(), "message": "secretword"}).status_code == 200
    assert "secret" not in (trained / "api.log").read_text("utf-8")
