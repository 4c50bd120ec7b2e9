"""Tests the OpenAPI document with Schemathesis, and Swagger UI in Chromium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from front_end import FrontEnd
from page import chromium

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_schemathesis_finds_nothing(front: FrontEnd, tmp_path: Path) -> None:
    command = [
        SCHEMATHESIS, "run", f"{front.url}/openapi.json", "--phases=examples,coverage,fuzzing", "--max-examples=20",
        "--seed=1", "--no-color", "--suppress-health-check=all", "--request-timeout=30",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Traceback" not in front.log
    assert "ERROR" not in front.log


def test_the_document_has_every_path_and_the_limits(front: FrontEnd) -> None:
    document = front.get("/openapi.json").json()
    model = "/v1/models/spam_ham"
    expected = {"/v1/predictions", "/livez", "/readyz", "/metrics"}
    for address in ("", "/versions/{version}", "/labels/{label}"):
        expected |= {model + address + call for call in ("", "/metadata", ":predict", ":classify")}
    assert set(document["paths"]) == expected
    assert document["components"]["schemas"]["PredictionRequest"]["properties"]["messages"]["maxItems"] == 1000


def test_swagger_ui_shows_the_api_with_scripts_from_the_front_end_alone(front: FrontEnd, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        page.open(f"{front.url}/docs")
        page.wait_for("document.body.innerText.includes('/v1/predictions')")
        loaded = page.value("performance.getEntriesByType('resource').map(entry => entry.name)")
        assert loaded
        assert all(url.startswith((front.url, "data:")) for url in loaded)


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js"])
def test_the_pages_of_the_documentation_may_load_nothing_from_elsewhere(front: FrontEnd, path: str) -> None:
    policy = front.get(path).headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in policy
