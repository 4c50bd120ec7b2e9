"""Failures of a command: one line on standard error, and an exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from published_batches import publish
from spamscore_command import (
    SCORES,
    SPAMSCORE,
    get_error,
    get_output,
    run,
    run_process,
)
from sqlalchemy.engine import Engine

from pipeline.command_group import EXIT_CODES


def test_a_bad_setting_exits_with_2_and_one_line(folder: Path) -> None:
    for text, expected in (
        ("[scoring]\nthreshold = 2\n", "[scoring] threshold"),
        ("[scorng]\nthreshold = 1\n", "did you mean scoring"),
        ("[database]\nurl = postgresql://me:${NOT_THERE}@h/d\n", "[database] url"),
    ):
        (folder / "luigi.cfg").write_text(text)
        result = run_process("batches", cwd=folder)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
        assert expected in result.stderr
    assert run_process("config", "--defaults", cwd=folder).returncode == 0


def test_bad_arguments_exit_with_2(folder: Path) -> None:
    for arguments in (["nonsense"], ["scores"], ["batches", "--limit", "0"], ["scores", "today", "--order", "size"]):
        assert run(*arguments).exit_code == 2


def test_a_database_that_cannot_be_reached_exits_with_35(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", f"sqlite:///{folder}/not/there.db")
    for command in (["batches"], ["scores", "today"], ["summary"]):
        assert "no such folder" in get_error(35, *command)


def test_an_unexpected_error_is_one_line_and_debug_shows_the_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug\x1b[2J")

    monkeypatch.setattr("pipeline.commands.context.check_settings", fail)
    error = get_error(1, "models")
    assert "RuntimeError: a bug[U+001B][2J (unexpected error; `spamscore --debug …` shows the traceback)" in error
    result = run("--debug", "models")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr


def test_a_closed_pipe_exits_with_141_and_no_message(database: Engine, folder: Path) -> None:
    publish(database, {f"message-{number:06}": 0.5 for number in range(20_000)})
    with subprocess.Popen(
        [SPAMSCORE, "scores", "2026-01-31"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0.500000\ttrue\tmessage-000000\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


def test_a_full_disk_is_reported(database: Engine, folder: Path) -> None:
    publish(database, SCORES)
    with open("/dev/full", "w") as full:
        result = subprocess.run([SPAMSCORE, "batches"], cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (1, "spamscore: standard output: No space left on device\n")


def test_an_interrupt_exits_with_130(database: Engine, folder: Path) -> None:
    publish(database, {f"message-{number:06}": 0.5 for number in range(20_000)})
    with subprocess.Popen(
        [SPAMSCORE, "scores", "2026-01-31"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.stdout.read()
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b"\n"


def test_characters_that_the_encoding_lacks_are_printed_as_code_points(database: Engine, folder: Path) -> None:
    publish(database, {"ü-1": 0.5})
    result = run_process("scores", "2026-01-31", cwd=folder, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stdout) == (0, "0.500000\ttrue\t\\xfc-1\n")


def test_the_help_lists_every_exit_code() -> None:
    listed = re.findall(r"^ +(\d+) +(.+)$", get_output("--help").split("Exit codes:\n")[1], re.MULTILINE)
    assert {int(code): meaning for code, meaning in listed} == EXIT_CODES
