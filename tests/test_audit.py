"""Tests of the audit: it reports what an advisory service reports, and does not trust a service that finds nothing."""

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
    message = "skipped: pip-audit is not installed (make lint installs it)"
    pytest.fail(message, pytrace=False) if os.environ.get("CI") else pytest.skip(message, allow_module_level=True)

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"


class Service(http.server.ThreadingHTTPServer):
    """An advisory service with the API of OSV."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.vulnerabilities = {("jinja2", "2.10"): "PYSEC-2019-217"}
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        identifier = self.server.vulnerabilities.get((query["package"]["name"], query["version"]))
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
        affected = [{"package": query["package"], "ranges": ranges}]
        answer = {"vulns": [{"id": identifier, "summary": "bad", "affected": affected}]} if identifier else {}
        self.answer(json.dumps(answer).encode())

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
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield service
        service.shutdown()
        thread.join()


@pytest.fixture
def audit(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, which uses only the service of this test."""
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SERVICES", (("osv", "--osv-url", service.address),))
    monkeypatch.setattr(module, "ALLOWED", tmp_path / "allowed.txt")
    (tmp_path / "allowed.txt").write_text("# none\n")
    return module


def test_a_known_vulnerability_fails_unless_it_is_allowed_until_a_later_date(
    audit: Any, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    version = metadata.version("luigi")
    service.vulnerabilities["luigi", version] = "PYSEC-2026-1"
    assert audit.main() == 1
    assert f"luigi {version}: PYSEC-2026-1; fixed in 99" in capsys.readouterr().out
    audit.ALLOWED.write_text("PYSEC-2026-1 2999-01-01 we call none of it\n")
    assert audit.main() == 0
    assert list(audit.find_expired()) == []
    audit.ALLOWED.write_text("PYSEC-2026-1 2026-01-01 we call none of it\n")
    (expired,) = audit.find_expired()
    assert "PYSEC-2026-1 was allowed until 2026-01-01 (we call none of it)" in expired


@pytest.mark.parametrize("state", ["reports nothing", "answers 503", "is unreachable"])
def test_a_service_that_does_not_report_the_canary_is_not_trusted(
    audit: Any, service: Service, state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.vulnerabilities = {}
    service.status = 503 if state == "answers 503" else 200
    if state == "is unreachable":
        monkeypatch.setattr(audit, "SERVICES", (("osv", "--osv-url", "http://127.0.0.1:1/"),))
    assert audit.main() == 3
    assert "NOT AUDITED" in capsys.readouterr().out
