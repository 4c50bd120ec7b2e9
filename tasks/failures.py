"""The last words of a run that fails: one readable message, after Luigi's summary, instead of a page of traceback.

Tasks run in child processes, the last word is the parent's: an anonymous file that the children inherit carries the
messages up. `FailureFilter` sits on Luigi's logger, shortens tracebacks of errors we raise on purpose, and remembers
each failure; `print_remembered` runs when the parent ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from luigi.task_register import TaskClassException

from models.errors import SpamscoreError

_file: IO[bytes] | None = None


def is_luigi_command() -> bool:
    """Whether this process is the `luigi` command, and not a program or a test that imports the tasks."""
    program = Path(sys.argv[0])
    return program.stem == "luigi" or (program.stem == "__main__" and program.parent.name == "luigi")


def install() -> None:
    """Starts remembering failures of this process and of those it forks. A second call does nothing."""
    global _file
    if _file is not None:
        return
    _file = tempfile.TemporaryFile(prefix="spamscore-")  # noqa: SIM115 - open as long as the process lives
    logging.getLogger("luigi-interface").addFilter(FailureFilter())
    atexit.register(print_remembered)
    sys.excepthook = _say_wrong_name


def remember(message: str) -> None:
    """Keeps a message for the end of the run; safe from any forked process."""
    if _file is not None:
        os.write(_file.fileno(), (message.replace("\n", " ") + "\n").encode("utf-8", "backslashreplace"))


def print_remembered() -> None:
    """Prints each remembered message once, in order."""
    if _file is None:
        return
    with _file:
        _file.seek(0)
        for line in dict.fromkeys(_file.read().decode("utf-8").splitlines()):
            print(f"spamscore: {line}", file=sys.stderr)


class FailureFilter(logging.Filter):
    """Shortens and remembers the failures that Luigi logs."""

    # What Luigi writes when complete() or requires() raised: it formats the traceback into the text itself.
    _SCHEDULING = re.compile(r"^(?:Will not run (?P<task>.+?) or any dependencies due to error)", re.DOTALL)
    _LAST_LINE = re.compile(r"^(?P<name>[\w.]+)(?:: (?P<text>.*))?\Z", re.DOTALL | re.MULTILINE)

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record in place; lets every record through."""
        if record.exc_info and record.exc_info[1] is not None:
            self._shorten_exception(record, record.exc_info[1])
        elif record.levelno >= logging.WARNING and (found := self._SCHEDULING.match(record.getMessage())):
            self._shorten_text(record, found["task"])
        return True

    def _shorten_exception(self, record: logging.LogRecord, error: BaseException) -> None:
        ours = expected(error)
        if not isinstance(ours, SystemExit):  # who ends a run on purpose has said so already
            task = str(record.args[-1]) if isinstance(record.args, tuple) and record.args else ""
            remember(f"{task} failed: {describe(error)}" if task else describe(error))
        if ours is not None:
            record.msg = f"{record.getMessage()}: {ours}"
            record.args = ()
            record.exc_info = None
            record.exc_text = None

    def _shorten_text(self, record: logging.LogRecord, task: str) -> None:
        text = record.getMessage().rstrip()
        last = text[text.rfind("\n", 0, text.rfind("Error") if "Error" in text else len(text)) + 1 :]
        found = self._LAST_LINE.match(last)
        name, reason = (found["name"], found["text"] or "") if found else ("", last)
        ours = name.startswith("models.errors.")
        remember(f"{task} failed: {reason if ours else last}")
        if ours:
            record.msg, record.args = f"Will not run {task}: {reason}", ()


def describe(error: BaseException) -> str:
    """The error as one line for a person; of an unexpected one also its type."""
    ours = expected(error)
    return str(ours) if ours is not None else f"{type(error).__name__}: {error} (unexpected; the traceback is above)"


def expected(error: BaseException | None) -> SpamscoreError | SystemExit | None:
    """What we raised on purpose, which Luigi may have wrapped in another; None if there is none."""
    while error is not None and not isinstance(error, SpamscoreError | SystemExit):
        error = error.__cause__
    return error


def _say_wrong_name(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line for a task that does not exist; Luigi would let Python print the traceback."""
    if issubclass(kind, TaskClassException):
        print("spamscore:", " ".join(str(error).split()), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
