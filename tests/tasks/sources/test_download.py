"""The download against a server of its own on the loopback: cut, throttled, lying, evil."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from models.errors import InputError
from tasks.sources import download
from tasks.sources.download import MEMBER, fetch_sms_spam_collection

CONTENT = b"ham\tHello\nspam\tWIN now\n" * 500
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def zipped(members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in (members or {"readme": b"about", MEMBER: CONTENT}).items():
            file.writestr(name, content)
    return buffer.getvalue()


@dataclass
class Site:
    """What the server has and how it behaves; each request takes the next of `behaviours`, the last one stays."""

    body: bytes
    address: str = ""
    etag: str | None = '"one"'
    ranges: bool = True
    behaviours: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    requests: list[str | None] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        fits = handler.headers.get("If-Range") == self.etag
        start = int(wanted[6:-1]) if wanted and fits and self.ranges else 0
        status = behaviour.get("status", 206 if start else 200)
        handler.send_response(status)
        if status == 206:
            at = behaviour.get("at", start)
            handler.send_header("Content-Range", f"bytes {at}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if not behaviour.get("no_length"):
            handler.send_header("Content-Length", str(behaviour.get("length", len(self.body) - start)))
        handler.end_headers()
        self._send(handler, self.body[start:][: behaviour.get("cut")], behaviour)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, body: bytes, behaviour: dict[str, Any]) -> None:
        step = behaviour.get("step", len(body) or 1)
        try:
            for place in range(0, len(body), step):
                handler.wfile.write(body[place : place + step])
                time.sleep(behaviour.get("pause", 0))
        except OSError:
            pass  # the other side went away, as it should


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    one = Site(zipped())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.address = f"http://127.0.0.1:{server.server_address[1]}/collection.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield one
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(site: Site, folder: Path, seconds: float = 20) -> Path:
    return fetch_sms_spam_collection(site.address, folder, seconds, False, SHA256)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_member_is_all_that_stays(site: Site, tmp_path: Path) -> None:
    path = fetch(site, tmp_path / "downloads")
    assert path.read_bytes() == CONTENT
    assert left(tmp_path / "downloads") == {MEMBER}


def test_what_is_there_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path)
    assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_a_file_that_somebody_changed_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / MEMBER).write_text("ham\tsomething else\n")
    assert fetch(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("behaviours", "changes", "requests"),
    [
        ([{"cut": 5000}, {}], {}, [None, "bytes=5000-"]),
        ([{"cut": 5000}, {"cut": 100}, {}], {}, [None, "bytes=5000-", "bytes=5100-"]),
        ([{"cut": 5000}, {}], {"ranges": False}, [None, "bytes=5000-"]),
        ([{"cut": 5000}, {}], {"etag": None}, [None, None]),
        ([{"cut": 5000}, {}], {"etag": 'W/"weak"'}, [None, None]),
        ([{"cut": 5000}, {"at": 7}, {}], {}, [None, "bytes=5000-", None]),
        ([{"cut": 5000}, {"status": 416}, {}], {}, [None, "bytes=5000-", None]),
        ([{"cut": 5000}, {"status": 503}, {}], {}, [None, "bytes=5000-", "bytes=5000-"]),
        ([{"no_length": True}], {}, [None]),
        ([{"step": 3000, "pause": 0.01}], {}, [None]),
    ],
)
def test_a_broken_download_goes_on_or_starts_anew(
    site: Site, tmp_path: Path, behaviours: list[dict[str, Any]], changes: dict[str, Any], requests: list[str | None]
) -> None:
    site.behaviours = behaviours
    for name, value in changes.items():
        setattr(site, name, value)
    assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert site.requests == requests
    assert left(tmp_path) == {MEMBER}


def test_a_later_run_goes_on_where_one_gave_up(site: Site, tmp_path: Path) -> None:
    site.behaviours = [{"cut": 1000}]
    with pytest.raises(InputError, match=r"the connection broke.*4 times in a row"):
        fetch(site, tmp_path)
    site.behaviours, site.requests = [{}], []
    assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert site.requests == ["bytes=4000-"]


def test_a_part_of_another_edition_is_not_continued(site: Site, tmp_path: Path) -> None:
    site.behaviours = [{"cut": 1000}, {"status": 404}]
    with pytest.raises(InputError):
        fetch(site, tmp_path)
    site.behaviours, site.etag, site.body = [{}], '"two"', zipped({"notes": b"x" * 3000, MEMBER: CONTENT})
    assert fetch(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour", [{"step": 1, "pause": 0.05}, {"step": 500, "pause": 5}])
def test_the_time_limit_holds_against_a_server_that_trickles(
    site: Site, tmp_path: Path, behaviour: dict[str, Any]
) -> None:
    site.behaviours = [behaviour]
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"within 0\.6 seconds, received \d+ bytes.*Raise \[corpus\] download_timeout"):
        fetch(site, tmp_path, seconds=0.6)
    assert time.monotonic() - begun < 3
    assert (tmp_path / "sms_spam_collection.zip.part").stat().st_size > 0


@pytest.mark.parametrize("status", [404, 403, 410, 204])
def test_an_answer_that_will_not_pass_is_not_asked_again(site: Site, tmp_path: Path, status: int) -> None:
    site.behaviours = [{"status": status}]
    with pytest.raises(InputError, match=rf"expected status 200, received {status} .*\[corpus\] source = file"):
        fetch(site, tmp_path)
    assert len(site.requests) == 1


def test_a_server_that_is_not_there_is_named(tmp_path: Path, site: Site) -> None:
    site.address = "http://somebody:s3cret@127.0.0.1:9/collection.zip"
    with pytest.raises(InputError) as caught:
        fetch(site, tmp_path)
    assert "127.0.0.1:9/collection.zip: the connection broke" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1/x.zip", "http://", "file:///etc/passwd", ""])
def test_an_address_that_cannot_be_read_is_refused(tmp_path: Path, site: Site, address: str) -> None:
    site.address = address
    with pytest.raises(InputError, match=r"Correct \[corpus\] download_url"):
        fetch(site, tmp_path)


@pytest.mark.parametrize("behaviour", [{"length": 65 * 2**20}, {"no_length": True}])
def test_a_file_beyond_the_limit_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, Any]
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 5000)
    site.behaviours = [behaviour]
    with pytest.raises(InputError, match="expected at most 5000 bytes"):
        fetch(site, tmp_path)
    assert left(tmp_path) == set()


def linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        link = zipfile.ZipInfo("readme")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        file.writestr(MEMBER, CONTENT)
    return buffer.getvalue()


def damaged(change: Callable[[bytearray], None]) -> bytes:
    body = bytearray(zipped({MEMBER: CONTENT}))
    change(body)
    return bytes(body)


def _flip(body: bytearray) -> None:
    body[2000] ^= 1


def _encrypt(body: bytearray) -> None:
    body[6] |= 1
    body[body.rindex(b"PK\x01\x02") + 8] |= 1


def _pack_oddly(body: bytearray) -> None:
    body[8] = 97
    body[body.rindex(b"PK\x01\x02") + 10] = 97


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (zipped({"/tmp/x": b"", MEMBER: CONTENT}), "would leave its folder"),
        (zipped({"../x": b"", MEMBER: CONTENT}), "would leave its folder"),
        (zipped({f"a/../../{MEMBER}": CONTENT}), "would leave its folder"),
        (zipped({f"C:\\{MEMBER}": CONTENT}), "would leave its folder"),
        (zipped({f"c:{MEMBER}": CONTENT}), "would leave its folder"),
        (zipped({f"..\\{MEMBER}": CONTENT}), "would leave its folder"),
        (zipped({f"\\\\host\\share\\{MEMBER}": CONTENT}), "would leave its folder"),
        (linked(), "would leave its folder"),
        (zipped({"readme": b""}), f"expected one {MEMBER} in the zip, received 0 among 'readme'"),
        (zipped({MEMBER: CONTENT, f"again/{MEMBER}": CONTENT}), f"expected one {MEMBER} in the zip, received 2"),
        (zipped({MEMBER: b"ham\tother\n"}), f"expected a {MEMBER} with SHA-256 {SHA256}, received"),
        (zipped({MEMBER: bytes(65 * 2**20)}, zipfile.ZIP_DEFLATED), "of at most 67108864 bytes, received 68157440"),
        (b"<html>Sign in to this network</html>", "expected a zip"),
        (b"", "expected a zip"),
        (zipped()[:-30], "expected a zip"),
        (damaged(_flip), "expected a zip, but it cannot be unpacked: Bad CRC-32"),
        (damaged(_encrypt), "password required"),
        (damaged(_pack_oddly), "expected a zip"),
    ],
)
def test_an_archive_that_is_not_as_it_should_be_leaves_nothing(
    site: Site, tmp_path: Path, body: bytes, expected: str
) -> None:
    site.body = body
    with pytest.raises(InputError) as caught:
        fetch(site, tmp_path / "downloads")
    assert expected in str(caught.value)
    assert site.address in str(caught.value)
    assert "[corpus] source = file" in str(caught.value)
    assert left(tmp_path) == {"downloads"}
    assert left(tmp_path / "downloads") == set()


def test_a_bar_is_drawn_in_a_terminal_alone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (terminal, wanted) in enumerate([("1", True), ("1", False), ("", True)]):
        monkeypatch.setenv("FORCE_COLOR", terminal)
        fetch_sms_spam_collection(site.address, tmp_path / str(number), 20, wanted, SHA256)
        assert ("sms_spam_collection.zip" in capsys.readouterr().err) is bool(terminal and wanted)


def test_a_size_that_the_zip_lies_about_is_not_exceeded(site: Site, tmp_path: Path) -> None:
    site.body = bytearray(zipped({MEMBER: bytes(20 * 2**20)}, zipfile.ZIP_DEFLATED))
    claim = site.body.rindex(b"PK\x01\x02") + 24
    site.body[claim : claim + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(InputError):
        fetch(site, tmp_path)
    assert left(tmp_path) == set()


def test_two_at_once_download_it_once(site: Site, tmp_path: Path) -> None:
    site.behaviours = [{"step": 1000, "pause": 0.01}]
    threads = [threading.Thread(target=fetch, args=(site, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.requests) == 1
    assert (tmp_path / MEMBER).read_bytes() == CONTENT
