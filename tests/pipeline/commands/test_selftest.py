"""`spamscore selftest`: a whole installation passes, and each broken part is found. Each case is a real process."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from other_user import readable_folder, run_without_write_permission
from spamscore_command import SPAMSCORE, Terminal, run_process, strip_styles

from pipeline.answers.selftest import CHECKS


@dataclass(frozen=True)
class Workspace:
    """A working folder, a folder for temporary files, and a folder at the start of the module search path."""

    working: Path
    temporary: Path
    modules: Path

    def environment(self, **variables: str) -> dict[str, str]:
        search_path = [str(self.modules), *filter(None, [os.environ.get("PYTHONPATH")])]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPAMSCORE_", "LUIGI_"))}
        own = {"PYTHONPATH": os.pathsep.join(search_path), "TMPDIR": str(self.temporary)}
        return {**inherited, **own, **variables}

    def selftest(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        variables = options.pop("variables", {})
        return run_process("selftest", *arguments, cwd=self.working, env=self.environment(**variables), **options)


def make_workspace(folder: Path) -> Workspace:
    workspace = Workspace(*(folder / name for name in ("working", "temporary", "modules")))
    for path in (workspace.working, workspace.temporary, workspace.modules):
        path.mkdir()
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, subprocess.CompletedProcess[str]]:
    """A run on two logical CPUs, with a database that is configured but must not be used."""
    workspace = make_workspace(tmp_path_factory.mktemp("selftest"))
    settings = "[devices]\nlogical_cpus = 2\ndevices = cpu:1\n[database]\nurl = sqlite:///configured.db\n"
    (workspace.working / "luigi.cfg").write_text(settings, encoding="utf-8")
    return workspace, workspace.selftest("--json", timeout=300)


def test_every_check_of_a_whole_installation_passes(passed: tuple[Workspace, Any]) -> None:
    done = passed[1]
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert [(check["name"], check["state"]) for check in report["checks"]] == [(name, "ok") for name in CHECKS]
    details = {check["name"]: check["detail"] for check in report["checks"]}
    assert details["training"].startswith("3 steps, loss ")
    assert details["devices"] == "cpu:1"


def test_the_report_has_versions_devices_cores_and_memory(passed: tuple[Workspace, Any]) -> None:
    report = json.loads(passed[1].stdout)
    names = ("spamscore", "tensorflow", "keras", "numpy", "pandas", "luigi", "sqlalchemy")
    expected = {name: importlib.metadata.version(name) for name in names}
    assert report["versions"] == {**expected, "python": platform.python_version()}
    assert report["devices"] == "cpu:1"
    assert report["cores"] == len(os.sched_getaffinity(0))
    assert report["memory_bytes"] > 2**28


def test_nothing_is_written_except_in_the_temporary_folder_which_is_deleted(passed: tuple[Workspace, Any]) -> None:
    workspace, _ = passed
    assert [path.name for path in workspace.working.iterdir()] == ["luigi.cfg"]
    assert list(workspace.temporary.iterdir()) == []


def break_module(name: str, code: str) -> Callable[[Workspace], None]:
    """Puts a module with this code before the installed one."""

    def write(workspace: Workspace) -> None:
        (workspace.modules / f"{name}.py").write_text(code + "\n", encoding="utf-8")

    return write


def install_version(name: str, version: str) -> Callable[[Workspace], None]:
    """Puts the metadata of another version before the installed ones."""

    def write(workspace: Workspace) -> None:
        folder = workspace.modules / f"{name}-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata, encoding="utf-8")

    return write


def set_setting(text: str) -> Callable[[Workspace], None]:
    return lambda workspace: (workspace.working / "luigi.cfg").write_text(text, encoding="utf-8") and None


FAULTS: dict[str, tuple[Callable[[Workspace], None], str, str]] = {
    "a package that cannot be imported": (
        break_module("pyarrow", "raise ImportError('libarrow.so.2200: cannot open\\nshared object file')"),
        "packages", "ImportError: libarrow.so.2200: cannot open shared object file (in ",
    ),
    "a package of a wrong version": (
        install_version("rich", "9.0"), "packages", "rich: expected version <16,>=14, received 9.0. Install it: pip ",
    ),
    "a package that kills the process": (
        break_module("numpy", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"),
        "packages", "killed by SIGILL: a package is compiled for another processor",
    ),
    "TensorFlow that cannot be imported": (
        break_module("tensorflow", "raise ImportError('libtensorflow_framework.so.2')"),
        "devices", "ImportError: libtensorflow_framework.so.2 (in ",
    ),
    "a misspelt setting": (set_setting("[devices]\ndevice = cpu:0\n"), "settings", "did you mean devices?"),
    "an unavailable device": (
        set_setting("[devices]\ndevices = gpu:97\n"),
        "devices", "device gpu:97 does not exist on this machine. Available: ",
    ),
    "two limits of memory": (
        set_setting("[devices]\nmemory_limit = 9\nmemory_share = 0.5\n"),
        "settings", "memory_limit = 9 and memory_share = 0.5: expected only one",
    ),
}  # fmt: skip


def depends_on(name: str, failed: str) -> bool:
    return any(required == failed or depends_on(required, failed) for required in CHECKS[name])


def require_failure(done: subprocess.CompletedProcess[str], failed: str, words: str) -> None:
    """Checks that one check failed, that those that depend on it are skipped, and the one line about it."""
    states = [line.split("\t")[:2] for line in done.stdout.splitlines()[: len(CHECKS)]]
    expected = {name: "skipped" if depends_on(name, failed) else "ok" for name in CHECKS} | {failed: "failed"}
    assert (done.returncode, dict(states)) == (1, expected), done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.startswith(f"spamscore: {failed} failed: ")
    assert done.stderr.count("\n") == 1
    assert words in next(line for line in done.stdout.splitlines() if line.startswith(f"{failed}\tfailed\t"))
    assert "\npython\t3." in done.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_the_checks_that_depend_on_it_are_skipped(fault: str, workspace: Workspace) -> None:
    cause, failed, words = FAULTS[fault]
    cause(workspace)
    require_failure(workspace.selftest(), failed, words)
    assert list(workspace.temporary.iterdir()) == []


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), ("a file", "Not a directory")])
def test_a_temporary_folder_that_cannot_be_used_is_found(name: str, reason: str, workspace: Workspace) -> None:
    (workspace.temporary / "a file").touch()
    folder = workspace.temporary / name
    done = workspace.selftest(variables={"TMPDIR": str(folder)})
    require_failure(done, "folder", f"TMPDIR = {folder}: {reason}. Free disk space, or set TMPDIR to a folder")


def test_a_temporary_folder_without_write_permission_is_found(workspace: Workspace) -> None:
    with readable_folder() as folder:
        environment = {**workspace.environment(TMPDIR=str(folder)), "HOME": str(folder)}
        done = run_without_write_permission(
            folder, sys.executable, str(SPAMSCORE), "selftest", cwd=folder, env=environment
        )
    require_failure(done, "folder", f"TMPDIR = {folder}: Permission denied. ")


# The limit makes each write beyond that size fail, as a full disk does. The largest file is that of the exported graph.
@pytest.mark.parametrize(("file_bytes", "failed"), [(4096, "folder"), (600_000, "export")])
def test_a_full_disk_is_found(file_bytes: int, failed: str, workspace: Workspace) -> None:
    done = workspace.selftest(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes)))
    require_failure(done, failed, "File too large. Free disk space")


def test_a_terminal_shows_a_line_for_each_check_and_then_the_versions(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.working)
    set_setting("[devices]\ndevices = gpu:97\n")(workspace)
    code, screen = Terminal("selftest", columns=60).wait()
    lines = strip_styles(screen).replace("\r", "").split("\n")
    assert code == 1
    assert any("ok      packages" in line and "packages have the versions needed" in line for line in lines)
    assert any("failed  devices" in line for line in lines)
    assert any("skipped training" in line and "depends on text" in line for line in lines)
    assert f"python      {platform.python_version()}" in lines
