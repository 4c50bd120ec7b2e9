"""The last words of a run: of a failure one readable message, after Luigi's summary, instead of a page of traceback;
and what a run that succeeds should not leave unsaid.

Tasks run in child processes, the last word is the parent's: an anonymous file that the children inherit carries the
messages up. `FailureFilter` sits on Luigi's logger, shortens tracebacks of errors we raise on purpose, and remembers
each failure; `end` runs when the parent ends.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import TaskClassException

from models.errors import SpamscoreError, StorageError


class Failure(NamedTuple):
    """A message that was remembered, and the exit code that it asks for, if any."""

    exit_code: int | None
    message: str


_file: IO[bytes] | None = None
_at_end: list[Callable[[list[Failure]], None]] = []
_REMARK, _FORGOTTEN = "remark", "forgotten"
# What the system answers of a disk that is full, or read-only, or of a folder that is somebody else's.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


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
    luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)(_say_killed)
    luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)(_say_done_before)
    atexit.register(end)
    sys.excepthook = _say_wrong_name


def remember(message: str, exit_code: int | None = None) -> None:
    """Keeps a message for the end of the run; safe from any forked process.

    Args:
        message: for a person.
        exit_code: that the run is to end with, if every message has this one.
    """
    _keep(str(exit_code or ""), message)


def remark(message: str) -> None:
    """Keeps what is no failure for the end of the run, and leaves the exit code alone; safe from any forked process."""
    _keep(_REMARK, message)


def forget(message: str) -> None:
    """Takes back what was remembered: it was mended while the run went on; safe from any forked process."""
    _keep(_FORGOTTEN, message)


def at_end(call: Callable[[list[Failure]], None]) -> None:
    """Has something done as the parent ends, after its last words; what it raises is said, and changes no exit code.

    Args:
        call: takes the failures of the run, each once, none if there was none.
    """
    _at_end.append(call)


def _keep(kind: str, message: str) -> None:
    if _file is not None:
        line = f"{kind}\t{message.replace(chr(10), ' ')}\n"
        os.write(_file.fileno(), line.encode("utf-8", "backslashreplace"))


def end() -> None:
    """Prints each remembered message once, the one said last at the end, and ends the process where they have an exit
    code of their own.
    """
    if _file is None:
        return
    with _file:
        _file.seek(0)
        remembered = _without_forgotten([line.split("\t", 1) for line in _file.read().decode("utf-8").splitlines()])
    for message in reversed(dict.fromkeys(message for _, message in reversed(remembered))):
        print(f"spamscore: {message}", file=sys.stderr)
    _call_back([(code, message) for code, message in remembered if code != _REMARK])
    codes = {code for code, _ in remembered} - {_REMARK}
    if len(codes) == 1 and (code := codes.pop()):
        # Luigi has one code for whatever fails, and it is chosen by now: Python's own way out would take that one.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))


def _without_forgotten(remembered: list[list[str]]) -> list[list[str]]:
    forgotten = {message for code, message in remembered if code == _FORGOTTEN}
    return [one for one in remembered if one[1] not in forgotten]


def _call_back(remembered: list[tuple[str, str]]) -> None:
    failures = [Failure(int(code) if code else None, message) for code, message in dict.fromkeys(remembered)]
    for call in _at_end:
        try:
            call(failures)
        except Exception as error:  # the run has its exit code by now, whatever happens here
            print(f"spamscore: {describe(error)}", file=sys.stderr)


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
            exit_code = ours.exit_code if isinstance(ours, SpamscoreError) else None
            remember(f"{task} failed: {describe(error)}" if task else describe(error), exit_code)
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
        if refused := refused_file(error):
            return refused
        error = error.__cause__
    return error


def refused_file(error: BaseException) -> StorageError | None:
    """What a disk refused, said in one line; None if it was something else. TensorFlow says it in its text alone."""
    said = str(error)
    if not isinstance(error, OSError) and not type(error).__module__.startswith("tensorflow."):
        return None
    for number in _REFUSALS:
        reason = os.strerror(number)
        if getattr(error, "errno", None) == number or reason in said:
            found = re.search(rf"(\S+); {reason}", said)
            name = getattr(error, "filename", None) or (found[1] if found else "")
            where = f"{name}: {reason}" if name else f"{Path.cwd()}: {reason}"
            return StorageError(
                f"{where}. Make room or give the right to write, and run again; what is done stays done."
            )
    return None


def _say_killed(task: luigi.Task, reason: str) -> None:
    """One line for a task whose process was killed, and so could say nothing itself. Luigi logs it as information."""
    number = int(reason.rsplit(maxsplit=1)[-1])
    if number < 0:
        remember(
            f"{task} failed: its process was killed by {signal.Signals(-number).name}, perhaps for want of memory: "
            "see the system's log. Run the same command again; what is done stays done."
        )


def _say_done_before(task: luigi.Task) -> None:
    """One line for a run that finds all done: Luigi says so too, but not at the end, and not of which task."""
    asked = CmdlineParser.get_instance()
    if asked is not None and asked.get_task_obj() == task:
        remark(f"{task} was done before; nothing was to be done")


def _say_wrong_name(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line for a task that does not exist; Luigi would let Python print the traceback."""
    if issubclass(kind, TaskClassException):
        print("spamscore:", " ".join(str(error).split()), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
