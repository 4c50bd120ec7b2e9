"""Runs the command `spamscore` in tests: in this process, as a real process, and in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.command_line import cli
from tasks.artifacts.folders import read_manifest, write_json, write_manifest
from tasks.artifacts.model_config import serve_versions, write_model_config

SPAMSCORE = Path(sys.executable).with_name("spamscore")
# Control, invisible and bidirectional characters that must not reach a terminal.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp\u200b\tx\ny\x9b31m"
SCORES = {"m-1": 0.998, "m-2": 0.25, "m-3": 0.75, "m-4": 0.0125}


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(cli, arguments, input=stdin, prog_name="spamscore")


def get_output(*arguments: str, stdin: bytes | None = None) -> str:
    """Returns the standard output of a command that succeeds."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def get_rows(*arguments: str) -> list[list[str]]:
    """Returns the tab-separated values of each line of output."""
    return [line.split("\t") for line in get_output(*arguments).splitlines()]


def get_error(exit_code: int, *arguments: str) -> str:
    """Returns the one line on standard error of a command that fails."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("spamscore: ")
    assert result.stderr.count("\n") == 1
    return str(result.stderr)


def run_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command as a real process."""
    return subprocess.run([SPAMSCORE, *arguments], capture_output=True, text=True, **{"timeout": 600, **options})


class Terminal:
    """The command as a real process in a pseudo-terminal."""

    def __init__(self, *arguments: str, columns: int = 80, **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [SPAMSCORE, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**variables, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(slave)
        self.screen = ""

    def read_until(self, text: str | None) -> str:
        """Reads until the text is on the screen; if it is None, until the process ends."""
        while text is None or text not in self.screen:
            if not select.select([self.master], [], [], 120)[0]:
                self.process.kill()
                self.process.wait()
                pytest.fail(f"{text!r} is not on the screen after two minutes; it shows {self.screen!r}")
            try:
                block = os.read(self.master, 65536)
            except OSError:  # the process closed the terminal
                break
            self.screen += block.decode("utf-8", "replace")
        return self.screen

    def type(self, keys: str) -> None:
        """Types keys on an empty screen."""
        if "\x03" in keys:
            self._wait_until_it_reads()
        self.screen = ""
        os.write(self.master, keys.encode())

    def _wait_until_it_reads(self) -> None:
        """Python's input() misses a signal between its prompt and its wait: without this, ^C would be lost."""
        polls_asleep, switches = 0, ""
        while polls_asleep < 10:
            time.sleep(0.05)
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
            previous_switches, switches = (
                switches,
                re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[0],
            )
            polls_asleep = polls_asleep + 1 if "\nState:\tS" in status and switches == previous_switches else 0

    def wait(self) -> tuple[int, str]:
        """Returns the exit code and what was on the screen, once the process has ended."""
        screen = self.read_until(None)
        os.close(self.master)
        return self.process.wait(timeout=60), screen.replace("\r\n", "\n")


def strip_styles(text: str) -> str:
    """Removes the escape sequences of colours and styles."""
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", text)


def export_version(
    folder: Path,
    version: int,
    training: str = "t",
    metrics: dict[str, float] | None = None,
    checkpoints: bool = False,
    **manifest_entries: object,
) -> None:
    """Writes the manifests of an exported version, without a model, and puts it in service."""
    training_folder = folder / "artifacts" / "training" / training
    if checkpoints:
        training_folder.mkdir(parents=True)
        write_manifest(training_folder, {"vocabulary_sha256": "v", "weights_sha256": "w"})
    path = folder / "artifacts" / "exports" / "spam_ham" / str(version)
    path.mkdir(parents=True)
    content = {"version": version, "training": training, "evaluation": f"e{version}", "fingerprint": f"f{version}"}
    content["trained"] = read_manifest(training_folder) if training_folder.exists() else {}
    write_manifest(path, {**content, **manifest_entries, "exported_at": "2026-01-31T04:05:06+02:00"})
    if metrics is not None:
        (folder / "artifacts" / "evaluation" / f"e{version}").mkdir(parents=True)
        write_json(folder / "artifacts" / "evaluation" / f"e{version}" / "metrics.json", metrics)
    exported = sorted(int(entry.name) for entry in path.parent.iterdir() if entry.name.isdecimal())
    write_model_config(path.parent, serve_versions(exported, version, None))
