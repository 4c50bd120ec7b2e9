"""Tests the download against a local HTTP server that cuts, throttles, lies and serves malicious archives."""

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
    """Content and behaviour of the server. Each request takes the next of `behaviours`; the last one is repeated."""

    body: bytes
    address: str = ""
    etag: str | None = '"one"'
    ranges: bool = True
    behaviours: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    requests: list[str | None] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        requested_range = handler.headers.get("Range")
        self.requests.append(requested_range)
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        is_unchanged = handler.headers.get("If-Range") == self.etag
        start = int(requested_range[6:-1]) if requested_range and is_unchanged and self.ranges else 0
        status = behaviour.get("status", 206 if start else 200)
        handler.send_response(status)
        if status == 206:
            offset = behaviour.get("offset", start)
            handler.send_header("Content-Range", f"bytes {offset}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if not behaviour.get("no_length"):
            handler.send_header("Content-Length", str(behaviour.get("length", len(self.body) - start)))
        handler.end_headers()
        self._send(handler, self.body[start:][: behaviour.get("cut")], behaviour)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, body: bytes, behaviour: dict[str, Any]) -> None:
        step = behaviour.get("step", len(body) or 1)
        try:
            for offset in range(0, len(body), step):
                handler.wfile.write(body[offset : offset + step])
                time.sleep(behaviour.get("pause", 0))
        except OSError:
            pass  # the client closed the connection, as it should


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    server_site = Site(zipped())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server_site.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server_site.address = f"http://127.0.0.1:{server.server_address[1]}/collection.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server_site
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(site: Site, folder: Path, seconds: float = 20) -> Path:
    return fetch_sms_spam_collection(site.address, folder, seconds, False, SHA256)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_the_member_is_kept(site: Site, tmp_path: Path) -> None:
    path = fetch(site, tmp_path / "downloads")
    assert path.read_bytes() == CONTENT
    assert names_in(tmp_path / "downloads") == {MEMBER}


def test_an_existing_file_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path)
    assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_a_changed_file_is_replaced(site: Site, tmp_path: Path) -> None:
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
        ([{"cut": 5000}, {"offset": 7}, {}], {}, [None, "bytes=5000-", None]),
        ([{"cut": 5000}, {"status": 416}, {}], {}, [None, "bytes=5000-", None]),
        ([{"cut": 5000}, {"status": 503}, {}], {}, [None, "bytes=5000-", "bytes=5000-"]),
        ([{"no_length": True}], {}, [None]),
        ([{"step": 3000, "pause": 0.01}], {}, [None]),
    ],
)
def test_a_broken_download_is_resumed_or_restarted(
    site: Site, tmp_path: Path, behaviours: list[dict[str, Any]], changes: dict[str, Any], requests: list[str | None]
) -> None:
    site.behaviours = behaviours
    for name, value in changes.items():
        setattr(site, name, value)
    assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert site.requests == requests
    assert names_in(tmp_path) == {MEMBER}


def test_a_later_run_resumes_a_failed_download(site: Site, tmp_path: Path) -> None:
    site.behaviours = [{"cut": 1000}]
    with pytest.raises(InputError, match=r"the connection broke.*4 times in a row"):
        fetch(site, tmp_path)
    site.behaviours, site.requests = [{}], []
    assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert site.requests == ["bytes=4000-"]


def test_a_download_is_not_resumed_when_the_content_changed(site: Site, tmp_path: Path) -> None:
    site.behaviours = [{"cut": 1000}, {"status": 404}]
    with pytest.raises(InputError):
        fetch(site, tmp_path)
    site.behaviours, site.etag, site.body = [{}], '"two"', zipped({"notes": b"x" * 3000, MEMBER: CONTENT})
    assert fetch(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour", [{"step": 1, "pause": 0.05}, {"step": 500, "pause": 5}])
def test_the_time_limit_applies_to_a_slow_server(site: Site, tmp_path: Path, behaviour: dict[str, Any]) -> None:
    site.behaviours = [behaviour]
    started = time.monotonic()
    with pytest.raises(InputError, match=r"within 0\.6 seconds, received \d+ bytes.*raise \[corpus\] download_timeout"):
        fetch(site, tmp_path, seconds=0.6)
    assert time.monotonic() - started < 3
    assert (tmp_path / "sms_spam_collection.zip.part").stat().st_size > 0


@pytest.mark.parametrize("status", [404, 403, 410, 204])
def test_a_permanent_http_error_is_not_retried(site: Site, tmp_path: Path, status: int) -> None:
    site.behaviours = [{"status": status}]
    with pytest.raises(InputError, match=rf"expected status 200, received {status} .*\[corpus\] source = file"):
        fetch(site, tmp_path)
    assert len(site.requests) == 1


def test_the_error_for_an_unreachable_server_names_it_without_its_password(tmp_path: Path, site: Site) -> None:
    site.address = "http://somebody:s3cret@127.0.0.1:9/collection.zip"
    with pytest.raises(InputError) as caught:
        fetch(site, tmp_path)
    assert "127.0.0.1:9/collection.zip: the connection broke" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1/x.zip", "http://", "file:///etc/passwd", ""])
def test_an_invalid_url_is_rejected(tmp_path: Path, site: Site, address: str) -> None:
    site.address = address
    with pytest.raises(InputError, match=r"Correct \[corpus\] download_url"):
        fetch(site, tmp_path)


def test_the_error_for_an_invalid_url_shows_no_password(tmp_path: Path, site: Site) -> None:
    site.address = "http://somebody:s3cret@/collection.zip"
    with pytest.raises(InputError, match=r"Correct \[corpus\] download_url") as caught:
        fetch(site, tmp_path)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("behaviour", [{"length": 65 * 2**20}, {"no_length": True}])
def test_a_file_above_the_size_limit_is_rejected(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, Any]
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 5000)
    site.behaviours = [behaviour]
    with pytest.raises(InputError, match="expected at most 5000 bytes"):
        fetch(site, tmp_path)
    assert names_in(tmp_path) == set()


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


def _set_unknown_compression(body: bytearray) -> None:
    body[8] = 97
    body[body.rindex(b"PK\x01\x02") + 10] = 97


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (zipped({"/tmp/x": b"", MEMBER: CONTENT}), "would be written outside its folder"),
        (zipped({"../x": b"", MEMBER: CONTENT}), "would be written outside its folder"),
        (zipped({f"a/../../{MEMBER}": CONTENT}), "would be written outside its folder"),
        (zipped({f"C:\\{MEMBER}": CONTENT}), "would be written outside its folder"),
        (zipped({f"c:{MEMBER}": CONTENT}), "would be written outside its folder"),
        (zipped({f"..\\{MEMBER}": CONTENT}), "would be written outside its folder"),
        (zipped({f"\\\\host\\share\\{MEMBER}": CONTENT}), "would be written outside its folder"),
        (linked(), "would be written outside its folder"),
        (zipped({"readme": b""}), f"expected one {MEMBER} in the zip, received 0 among 'readme'"),
        (zipped({MEMBER: CONTENT, f"again/{MEMBER}": CONTENT}), f"expected one {MEMBER} in the zip, received 2"),
        (zipped({MEMBER: b"ham\tother\n"}), f"expected a {MEMBER} with SHA-256 {SHA256}, received"),
        (zipped({MEMBER: bytes(65 * 2**20)}, zipfile.ZIP_DEFLATED), "of at most 67108864 bytes, received 68157440"),
        (b"<html>Sign in to this network</html>", "expected a zip"),
        (b"", "expected a zip"),
        (zipped()[:-30], "expected a zip"),
        (damaged(_flip), "expected a zip, but it cannot be unpacked: Bad CRC-32"),
        (damaged(_encrypt), "password required"),
        (damaged(_set_unknown_compression), "expected a zip"),
    ],
)
def test_a_bad_archive_is_rejected_and_leaves_no_file(site: Site, tmp_path: Path, body: bytes, expected: str) -> None:
    site.body = body
    with pytest.raises(InputError) as caught:
        fetch(site, tmp_path / "downloads")
    assert expected in str(caught.value)
    assert site.address in str(caught.value)
    assert "[corpus] source = file" in str(caught.value)
    assert names_in(tmp_path) == {"downloads"}
    assert names_in(tmp_path / "downloads") == set()


def test_a_progress_bar_is_drawn_only_in_a_terminal(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (terminal, show_progress) in enumerate([("1", True), ("1", False), ("", True)]):
        monkeypatch.setenv("FORCE_COLOR", terminal)
        fetch_sms_spam_collection(site.address, tmp_path / str(number), 20, show_progress, SHA256)
        assert ("sms_spam_collection.zip" in capsys.readouterr().err) is bool(terminal and show_progress)


def test_extraction_stops_at_the_size_that_the_zip_declares(site: Site, tmp_path: Path) -> None:
    site.body = bytearray(zipped({MEMBER: bytes(20 * 2**20)}, zipfile.ZIP_DEFLATED))
    size_field = site.body.rindex(b"PK\x01\x02") + 24
    site.body[size_field : size_field + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(InputError):
        fetch(site, tmp_path)
    assert names_in(tmp_path) == set()


def test_concurrent_calls_download_only_once(site: Site, tmp_path: Path) -> None:
    site.behaviours = [{"step": 1000, "pause": 0.01}]
    threads = [threading.Thread(target=fetch, args=(site, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.requests) == 1
    assert (tmp_path / MEMBER).read_bytes() == CONTENT
