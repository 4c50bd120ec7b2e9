"""The audit of what is installed finds what an advisory service says, and believes no silence."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("pip_audit") is None:
    message = "pip-audit is not here, and its tests are left out: make lint installs it"
    pytest.fail(message, pytrace=False) if os.environ.get("CI") else pytest.skip(message, allow_module_level=True)

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"


class Service(http.server.ThreadingHTTPServer):
    """An advisory service in OSV's words."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.status = 200
        self.known = {("jinja2", "2.10"): "PYSEC-2019-217"}
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = {**asked["package"], "version": asked["version"]}
        known = self.server.known.get((package["name"], package["version"]))
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
        affected = [{"package": asked["package"], "ranges": ranges}]
        found = {"vulns": [{"id": known, "summary": "bad", "affected": affected}]} if known else {}
        self.answer(json.dumps(found).encode())

    def answer(self, content: bytes, kind: str = "application/json") -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Service() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def audit(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, asking the service of this test alone."""
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SERVICES", (("osv", "--osv-url", service.address),))
    monkeypatch.setattr(module, "ALLOWED", tmp_path / "allowed.txt")
    (tmp_path / "allowed.txt").write_text("# none\n")
    return module


def test_a_known_vulnerability_fails_unless_it_is_let_pass_for_a_time(
    audit: Any, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    version = metadata.version("luigi")
    service.known["luigi", version] = "PYSEC-2026-1"
    assert audit.main() == 1
    assert f"luigi {version}: PYSEC-2026-1; mended in 99" in capsys.readouterr().out
    audit.ALLOWED.write_text("PYSEC-2026-1 2999-01-01 we call none of it\n")
    assert audit.main() == 0
    assert list(audit.expired()) == []
    audit.ALLOWED.write_text("PYSEC-2026-1 2026-01-01 we call none of it\n")
    (expired,) = audit.expired()
    assert "PYSEC-2026-1 was let pass until 2026-01-01 (we call none of it)" in expired


@pytest.mark.parametrize("silence", ["knows nothing", "is down", "is gone"])
def test_silence_is_not_taken_for_a_clean_bill(
    audit: Any, service: Service, silence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.known = {}
    service.status = 503 if silence == "is down" else 200
    if silence == "is gone":
        monkeypatch.setattr(audit, "SERVICES", (("osv", "--osv-url", "http://127.0.0.1:1/"),))
    assert audit.main() == 3
    assert "NOT AUDITED" in capsys.readouterr().out
