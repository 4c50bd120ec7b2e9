"""Tests the command `spamscore api` itself: options and the extra that it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from chain import environment
from spamscore_command import get_output

WITHOUT_PACKAGE = """
import sys
sys.modules[sys.argv.pop(1)] = None
from pipeline.command_line import main
main()
"""


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "grpc_health.v1"])
def test_without_the_extra_one_line_names_it(tmp_path: Path, package: str) -> None:
    command = [sys.executable, "-c", WITHOUT_PACKAGE, package, "api", "--port", "0", "--grpc-port", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    extra = "api,serving" if package.startswith("grpc") else "api"
    assert (
        done.stderr
        == f"spamscore: spamscore api: {package} is not installed. Install it: pip install 'spamscore[{extra}]'\n"
    )


def test_the_help_names_the_options_and_the_paths(folder: Path) -> None:
    text = get_output("api", "--help")
    for part in ("--host", "--port", "--grpc-port", "--backend", "/v1/predictions", "/readyz", "drain_seconds"):
        assert part in text
