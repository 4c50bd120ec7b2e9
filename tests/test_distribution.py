"""Tests of the built wheel: it is complete, and it runs the chain without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from chain import DATE, SMALL, write_settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "pipeline", "tasks")
UNPACKAGED = {"__pycache__"}


def environment() -> dict[str, str]:
    """Returns the environment variables without those that refer to the checkout or to settings."""
    hidden = ("SPAMSCORE_", "LUIGI", "PYTHON", "VIRTUAL_ENV", "COV_", "NUMBA_")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def pip(python: Path, *arguments: str | Path, cwd: Path) -> None:
    """Runs pip, which downloads packages; without a package index the test is skipped, and fails in CI."""
    command = [python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr and not os.environ.get("CI"):
        pytest.skip("skipped: no package index can be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, because a build creates folders next to them."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns(*UNPACKAGED))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_exactly_the_files_of_the_packages(wheel: Path) -> None:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in files if not UNPACKAGED & set(path.parts)}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    assert packed == expected
    assert {"License-Expression: Apache-2.0", "License-File: LICENSE", "Author: spamscore contributors"} <= set(lines)


@pytest.mark.timeout(1200)
def test_the_wheel_runs_the_chain_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    programs = tmp_path / "venv" / "bin"
    pip(programs / "python", "install", wheel, cwd=tmp_path)

    folder = tmp_path / "night"
    folder.mkdir()
    write_settings(folder, SMALL)
    code = "import models, pipeline, tasks; print(models.__file__, pipeline.__file__, tasks.__file__, sep='\\n')"
    for module in run(programs / "python", "-W", "ignore", "-c", code, cwd=folder).splitlines():
        assert Path(module).is_relative_to(tmp_path / "venv")
    run(programs / "luigi", "--module", "pipeline", "ScoreBatch", "--date", DATE, cwd=folder)
    assert "Messages read" in run(programs / "spamscore", "summary", DATE, cwd=folder)
    assert run(programs / "spamscore", "--version", cwd=folder).startswith("spamscore 0.")
