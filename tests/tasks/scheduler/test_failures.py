"""The last lines of a run: storage errors, failures, notes, and the exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.scheduler.failures import describe_error, find_expected_error

# As TensorFlow raises it: the path and the reason are only in its text.
TFError = type("ResourceExhaustedError", (Exception,), {"__module__": "tensorflow.python.framework.errors_impl"})

FULL, LOCKED = os.strerror(errno.ENOSPC), os.strerror(errno.EROFS)
STORAGE_ERRORS = [
    (OSError(errno.ENOSPC, FULL, "artifacts/corpus"), f"artifacts/corpus: {FULL}"),
    (OSError(errno.EROFS, LOCKED, "artifacts/corpus"), f"artifacts/corpus: {LOCKED}"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "artifacts"), "artifacts: Permission denied"),
    (OSError(f"[Errno 28] Error writing bytes to file. Detail: [errno 28] {FULL}"), f"{Path.cwd()}: {FULL}"),
    (
        TFError(f"{{{{function_node SaveV2}}}} artifacts/ckpt-1; {FULL} [Op:SaveV2]"),
        f"artifacts/ckpt-1: {FULL}",
    ),
]


@pytest.mark.parametrize(("error", "line"), STORAGE_ERRORS, ids=[type(error).__name__ for error, _ in STORAGE_ERRORS])
def test_a_storage_error_is_described_in_one_line_without_a_traceback(error: Exception, line: str) -> None:
    assert find_expected_error(error) is not None
    assert describe_error(error) == (
        f"{line}. Free disk space or grant write permission, and run again; finished work is kept."
    )


@pytest.mark.parametrize("error", [OSError(errno.EPIPE, "Broken pipe"), ValueError(FULL), TFError("NaN")])
def test_another_error_stays_unexpected(error: Exception) -> None:
    assert find_expected_error(error) is None
    assert "the traceback is above" in describe_error(error)


RUNS = [
    ("a note does not change the exit code", ["record_note('refused')"], 0),
    ("a failure's own exit code", ["record_failure('another run', 10)", "record_note('refused')"], 10),
    (
        "a retracted failure is not printed",
        ["record_note('refused')", "record_failure('no file', 20)", "retract_failure('no file')"],
        0,
    ),
    (
        "a failure of an attempt that was repeated with success",
        ["record_failure('Task failed: bad', 60)", "retract_failure('Task failed: ')"],
        0,
    ),
    ("different exit codes leave Luigi's", ["record_failure('another run', 10)", "record_failure('bad')"], 0),
]


@pytest.mark.parametrize(("_name", "calls", "code"), RUNS, ids=[run[0] for run in RUNS])
def test_each_message_is_printed_once_and_in_order(_name: str, calls: list[str], code: int) -> None:
    program = "from tasks.scheduler import failures\nfailures.install()\n"
    program += "".join(f"failures.{call}\n" for call in calls * 2)
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == code
    messages = dict.fromkeys(call.split("'")[1] for call in calls)
    retracted = tuple(call.split("'")[1] for call in calls if call.startswith("retract"))
    assert process.stderr.splitlines() == [
        f"spamscore: {text}" for text in messages if not retracted or not text.startswith(retracted)
    ]
