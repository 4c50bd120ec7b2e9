"""What a run says last: that a disk refuses a file, what is no failure."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.scheduler.failures import describe, expected

# As TensorFlow raises it, which says the path and the reason in its text alone.
FromTensorFlow = type("ResourceExhaustedError", (Exception,), {"__module__": "tensorflow.python.framework.errors_impl"})

FULL, LOCKED = os.strerror(errno.ENOSPC), os.strerror(errno.EROFS)
REFUSED = [
    (OSError(errno.ENOSPC, FULL, "artifacts/corpus"), f"artifacts/corpus: {FULL}"),
    (OSError(errno.EROFS, LOCKED, "artifacts/corpus"), f"artifacts/corpus: {LOCKED}"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "artifacts"), "artifacts: Permission denied"),
    (OSError(f"[Errno 28] Error writing bytes to file. Detail: [errno 28] {FULL}"), f"{Path.cwd()}: {FULL}"),
    (FromTensorFlow(f"{{{{function_node SaveV2}}}} artifacts/ckpt-1; {FULL} [Op:SaveV2]"), f"artifacts/ckpt-1: {FULL}"),
]


@pytest.mark.parametrize(("error", "said"), REFUSED, ids=[type(one).__name__ for one, _ in REFUSED])
def test_a_disk_that_refuses_a_file_is_said_in_one_line_without_a_traceback(error: Exception, said: str) -> None:
    assert expected(error) is not None
    assert describe(error) == f"{said}. Make room or give the right to write, and run again; what is done stays done."


@pytest.mark.parametrize("error", [OSError(errno.EPIPE, "Broken pipe"), ValueError(FULL), FromTensorFlow("NaN")])
def test_another_error_stays_unexpected(error: Exception) -> None:
    assert expected(error) is None
    assert "the traceback is above" in describe(error)


REMEMBERED = [
    ("what is no failure leaves the exit code alone", ["remark('kept out')"], 0),
    ("a failure's own exit code holds", ["remember('another run', 10)", "remark('kept out')"], 10),
    ("what was mended is said no more", ["remark('kept out')", "remember('no file', 20)", "forget('no file')"], 0),
    ("of failures with several Luigi's holds", ["remember('another run', 10)", "remember('bad')"], 0),
]


@pytest.mark.parametrize(("_what", "calls", "code"), REMEMBERED, ids=[row[0] for row in REMEMBERED])
def test_the_last_words_are_said_once_each_and_in_order(_what: str, calls: list[str], code: int) -> None:
    program = "from tasks import failures\nfailures.install()\n" + "".join(f"failures.{call}\n" for call in calls * 2)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    said = [call.split("'")[1] for call in calls]
    forgotten = {call.split("'")[1] for call in calls if call.startswith("forget")}
    assert done.stderr.splitlines() == [f"spamscore: {one}" for one in said if one not in forgotten]
