"""The script `luigi` of this project: a module that does not exist and a bad settings file are one line each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chain import CommandResult, environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script, as pip generates it from setup.py."""
    (entry,) = [
        line for line in (ROOT / "setup.py").read_text(encoding="utf-8").split('"') if line.startswith("luigi =")
    ]
    module, function = entry.removeprefix("luigi = ").split(":")
    path = tmp_path / "bin" / "luigi"
    path.parent.mkdir()
    path.write_text(f"from {module} import {function}\n{function}()\n", encoding="utf-8")
    return path


def run(script: Path, *arguments: str, **variables: str) -> CommandResult:
    folder = script.parents[1]
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env=environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(folder)]), **variables),
    )  # fmt: skip
    return CommandResult(done.returncode, done.stdout + done.stderr)


def test_a_settings_file_that_luigi_cannot_read_is_one_line(script: Path) -> None:
    (script.parents[1] / "luigi.cfg").write_bytes(b"\xef\xbb\xbf[run]\ncatch_up_days = 1\n")
    done = run(script, "--module", "pipeline", "ScoreBatch")
    assert (done.code, done.output.count("\n")) == (40, 1)
    assert done.output.startswith("spamscore: luigi.cfg, line 1: a UTF-8 byte order mark")


def test_a_module_that_does_not_exist_is_one_line(script: Path) -> None:
    done = run(script, "--module", "pipline", "ScoreBatch")
    assert (done.code, done.output) == (
        2, "spamscore: --module pipline: there is no such module (did you mean pipeline?)\n",
    )  # fmt: skip


def test_tasks_of_this_project_run(script: Path) -> None:
    done = run(script, "--module", "pipeline", "IngestCorpus")
    assert (done.code, done.ran) == (0, {"IngestCorpus"}), done.output


def test_tasks_of_other_projects_run_without_this_one(script: Path) -> None:
    (script.parents[1] / "other.py").write_text(
        "import sys, luigi\n"
        "class Other(luigi.WrapperTask):\n"
        "    pass\n"
        "print('pipeline' in sys.modules)\n",
        encoding="utf-8",
    )  # fmt: skip
    done = run(script, "--module", "other", "Other", "--local-scheduler")
    assert (done.code, "False\n" in done.output) == (0, True), done.output
    done = run(script, "--module", "other", "Othr", "--local-scheduler")
    assert "Traceback" in done.output  # Luigi's own message


def test_a_module_that_another_module_misses_keeps_its_traceback(script: Path) -> None:
    (script.parents[1] / "other.py").write_text("import missing_dependency\n", encoding="utf-8")
    done = run(script, "--module=other", "Other")
    assert (done.code, "Traceback" in done.output) == (1, True)
    assert "No module named 'missing_dependency'" in done.last_line
