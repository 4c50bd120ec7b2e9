"""The layering: pipeline → tasks → models, never back, and TensorFlow only where it computes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "tasks", "models")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# What a package may import of this project, and what it may never import.
ALLOWED = {"pipeline": {"pipeline", "tasks", "models"}, "tasks": {"tasks", "models"}, "models": {"models"}}
FORBIDDEN = {"pipeline": set(), "tasks": set(), "models": {"luigi", "sqlalchemy", "alembic", "click"}}
HEAVY = ("tensorflow", "keras", "numba", "pandas", "pyarrow", "sklearn", "matplotlib", "alembic")
BANNED_NAMES = ("utils", "util", "common", "helpers", "helper", "misc", "manager")


def imported(path: Path) -> set[str]:
    """Top-level names of all that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    names = imported(path)
    assert names & set(PACKAGES) <= ALLOWED[package]
    assert not names & FORBIDDEN[package]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_by_saying_what_lives_in_it(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_a_drawer_for_odds_and_ends(path: Path) -> None:
    assert not set(path.relative_to(ROOT).with_suffix("").parts) & set(BANNED_NAMES)


@pytest.mark.parametrize("module", ["pipeline", "pipeline.command_line", "tasks.score_batch", "tasks.settings.loading"])
def test_what_the_scheduler_imports_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_asking_whether_a_batch_is_done_imports_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys, pipeline; print(pipeline.ScoreBatch().complete(), "
        f"*[name for name in {HEAVY[:2]!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["False"]
    assert not (tmp_path / "spamscore.db").exists()


# Test files of a concern that no one module has.
WITHOUT_MODULE = {
    "pipeline/test_bad_artifacts.py",
    "pipeline/test_bad_corpora.py",
    "pipeline/test_bad_messages.py",
    "pipeline/test_luigi_command.py",
    "pipeline/test_nightly_chain.py",
    "pipeline/test_reports.py",
    "tasks/database/test_migrations.py",
}


def test_every_test_file_mirrors_a_module_or_a_concern_of_several() -> None:
    tests = ROOT / "tests"
    for package in PACKAGES:
        for path in (tests / package).rglob("test_*.py"):
            mirrored = path.relative_to(tests).with_name(path.name.removeprefix("test_"))
            assert (ROOT / mirrored).exists() or str(path.relative_to(tests)) in WITHOUT_MODULE, (
                f"{path} tests no module"
            )
