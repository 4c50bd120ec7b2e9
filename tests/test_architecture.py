"""Tests of the layout: the import order in pyproject.toml, the size of modules and folders, and light imports."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "tasks", "models")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = ("tensorflow", "keras", "numba", "pandas", "pyarrow", "sklearn", "matplotlib", "alembic")
BANNED_NAMES = ("utils", "util", "common", "helpers", "helper", "misc", "manager")


def test_all_imports_follow_the_declared_order() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_a_folder_has_at_most_13_modules() -> None:
    counts = Counter(path.parent.relative_to(ROOT) for path in MODULES if path.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > 13} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_has_a_catch_all_name(path: Path) -> None:
    assert not set(path.relative_to(ROOT).with_suffix("").parts) & set(BANNED_NAMES)


@pytest.mark.parametrize("module", ["pipeline", "pipeline.command_line", "tasks.score_batch", "tasks.settings.loading"])
def test_modules_that_the_scheduler_imports_import_no_heavy_package(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_checking_whether_a_batch_is_complete_imports_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys, pipeline; print(pipeline.ScoreBatch().complete(), "
        f"*[name for name in {HEAVY[:2]!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["False"]
    assert not (tmp_path / "spamscore.db").exists()


# Test files for a topic that several modules share.
WITHOUT_MODULE = {
    "pipeline/commands/serving/test_one_version_everywhere.py",
    "pipeline/test_bad_artifacts.py",
    "pipeline/test_bad_corpora.py",
    "pipeline/test_bad_messages.py",
    "pipeline/test_dates_and_paths.py",
    "pipeline/test_input_files.py",
    "pipeline/test_luigi_command.py",
    "pipeline/test_nightly_chain.py",
    "pipeline/test_object_storage.py",
    "pipeline/test_rejected_messages.py",
    "pipeline/test_reports.py",
    "pipeline/test_sample.py",
    "pipeline/test_upgrade.py",
    "tasks/database/test_migrations.py",
    "tasks/database/test_pgbouncer.py",
}


def test_every_test_file_mirrors_a_module_or_a_topic_of_several_modules() -> None:
    tests = ROOT / "tests"
    for package in PACKAGES:
        for path in (tests / package).rglob("test_*.py"):
            mirrored = path.relative_to(tests).with_name(path.name.removeprefix("test_"))
            assert (ROOT / mirrored).exists() or str(path.relative_to(tests)) in WITHOUT_MODULE, (
                f"{path}: expected a module {mirrored} that it tests; rename the file or add it to WITHOUT_MODULE"
            )
