"""TensorFlow is imported once in a run: before the first process that needs it, and not at all if none does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from chain import LUIGI, environment
from doc_pages import ROOT

# Each task writes whether its process had TensorFlow when it started.
TASKS = """
import sys
import luigi
import pipeline

class Plain(luigi.Task):
    def output(self):
        return luigi.LocalTarget(self.task_family)

    def run(self):
        with self.output().open("w") as file:
            file.write(str("tensorflow" in sys.modules))

class Computing(Plain):
    uses_tensorflow = True

    def requires(self):
        return Plain()

class Second(Computing):
    def requires(self):
        return Computing()
"""
BROKEN = 'raise TypeError("this installation is broken")'


def run(folder: Path, task: str) -> subprocess.CompletedProcess[str]:
    (folder / "their_tasks.py").write_text(TASKS, encoding="utf-8")
    command = [LUIGI, "--module", "their_tasks", task]
    variables = environment(PYTHONPATH=str(folder))
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("task", "started_with_tensorflow"),
    [("Plain", {"Plain": "False"}), ("Second", {"Plain": "False", "Computing": "True", "Second": "True"})],
)
def test_each_process_that_needs_tensorflow_starts_with_it(
    task: str, started_with_tensorflow: dict[str, str], tmp_path: Path
) -> None:
    assert run(tmp_path, task).returncode == 0
    assert {name: (tmp_path / name).read_text() for name in started_with_tensorflow} == started_with_tensorflow


def test_a_tensorflow_that_cannot_be_imported_fails_only_the_tasks_that_import_it(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(BROKEN, encoding="utf-8")
    assert run(tmp_path, "Second").returncode == 0
    assert (tmp_path / "Second").read_text() == "False"


@pytest.mark.parametrize("path", sorted((ROOT / "tasks").glob("*.py")), ids=lambda path: path.name)
def test_a_stage_that_prepares_tensorflow_says_so(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "prepare_tensorflow()" in text.replace("def prepare_tensorflow()", ""):
        assert "    uses_tensorflow = True\n" in text
