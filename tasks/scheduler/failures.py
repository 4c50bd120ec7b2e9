"""Collects the failures and notes of a run, and prints each as one line after Luigi's summary.

Tasks run in child processes, but the parent prints last. An anonymous file that the children inherit carries the
messages to the parent. `FailureFilter` sits on Luigi's logger: it shortens the tracebacks of expected errors and
records each failure. `finish_run` runs when the parent ends: it prints the lines and sets the exit code.
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
from typing import IO, NamedTuple

import luigi
from luigi.cmdline_parser import CmdlineParser

from models import errors
from models.errors import SpamscoreError, StorageError


class Failure(NamedTuple):
    """A recorded failure: its message and the exit code that it asks for, if any."""

    exit_code: int | None
    message: str


_message_file: IO[bytes] | None = None
_end_callbacks: list[Callable[[list[Failure]], None]] = []
_NOTE, _RETRACTED = "note", "retracted"
# What Luigi raises if a task is retried whose dependency is no longer complete, such as a snapshot that was discarded.
# It then runs the dependency, which reports its own failure.
_UNFULFILLED = "Unfulfilled dependenc"
# The system's errors for a disk that is full or read-only, and for a folder without write permission.
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def install() -> None:
    """Starts recording the failures of this process and of those it forks. A second call does nothing."""
    global _message_file
    if _message_file is not None:
        return
    _message_file = tempfile.TemporaryFile(prefix="spamscore-")  # noqa: SIM115 - open as long as the process lives
    logging.getLogger("luigi-interface").addFilter(FailureFilter())
    luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)(_record_killed_process)
    luigi.Task.event_handler(luigi.Event.SUCCESS)(_retract_failures)
    luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)(_note_already_complete)
    atexit.register(finish_run)


def record_failure(message: str, exit_code: int | None = None) -> None:
    """Records a failure, to be printed at the end of the run. Can be called from any forked process.

    Args:
        message: one line for the user.
        exit_code: exit code of the run if all its failures have this one; None for Luigi's own.
    """
    _write_message(str(exit_code or ""), message)


def record_note(message: str) -> None:
    """Records a message that is no failure, to be printed at the end of the run. The exit code does not change.

    Can be called from any forked process.
    """
    _write_message(_NOTE, message)


def retract_failure(message: str) -> None:
    """Removes a recorded failure that was resolved during the run. Can be called from any forked process.

    Args:
        message: the failure, or the start of one.
    """
    _write_message(_RETRACTED, message)


def on_run_end(callback: Callable[[list[Failure]], None]) -> None:
    """Registers a callback for the end of the parent process, after the last lines of the run.

    Notes that the callback records are printed after it. Its exceptions are printed and do not change the exit code.

    Args:
        callback: takes the failures of the run without duplicates; an empty list if there was none.
    """
    _end_callbacks.append(callback)


def _write_message(kind: str, message: str) -> None:
    if _message_file is not None:
        line = f"{kind}\t{message.replace(chr(10), ' ')}\n"
        os.write(_message_file.fileno(), line.encode("utf-8", "backslashreplace"))


def finish_run() -> None:
    """Prints each recorded message once, in the order of their latest occurrence, and calls the callbacks.

    If all failures have the same exit code of their own, the process exits here with it.
    """
    if _message_file is None:
        return
    with _message_file:
        messages = _read_messages(_message_file)
        _print_messages(messages)
        _call_end_callbacks([(kind, message) for kind, message in messages if kind != _NOTE])
        _print_messages(_read_messages(_message_file)[len(messages) :])
    codes = {kind for kind, _ in messages} - {_NOTE}
    if len(codes) == 1 and (code := codes.pop()):
        # Luigi has one exit code for all failures and has chosen it by now. A regular exit would use that one.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))


def _read_messages(file: IO[bytes]) -> list[list[str]]:
    file.seek(0)
    lines = file.read().decode("utf-8").splitlines()
    return _without_retracted([line.split("\t", 1) for line in lines])


def _print_messages(messages: list[list[str]]) -> None:
    for message in reversed(dict.fromkeys(message for _, message in reversed(messages))):
        print(f"spamscore: {message}", file=sys.stderr)


def _without_retracted(messages: list[list[str]]) -> list[list[str]]:
    kept: list[list[str]] = []
    for kind, text in messages:
        if kind == _RETRACTED:
            kept = [message for message in kept if message[0] == _NOTE or not message[1].startswith(text)]
        else:
            kept.append([kind, text])
    return kept


def _call_end_callbacks(messages: list[tuple[str, str]]) -> None:
    failures = [Failure(int(code) if code else None, message) for code, message in dict.fromkeys(messages)]
    for callback in _end_callbacks:
        try:
            callback(failures)
        except Exception as error:  # the exit code is decided by now
            print(f"spamscore: {describe_error(error)}", file=sys.stderr)


class FailureFilter(logging.Filter):
    """Shortens and records the failures that Luigi logs."""

    # What Luigi logs when complete() or requires() raised: it formats the traceback into the text itself.
    _SCHEDULING = re.compile(r"^(?:Will not run (?P<task>.+?) or any dependencies due to error)", re.DOTALL)
    _LAST_LINE = re.compile(r"^(?P<name>[\w.]+)(?:: (?P<text>.*))?\Z", re.DOTALL | re.MULTILINE)

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record in place and returns True: every record is logged."""
        if record.exc_info and record.exc_info[1] is not None:
            self._shorten_exception(record, record.exc_info[1])
        elif record.levelno >= logging.WARNING and (match := self._SCHEDULING.match(record.getMessage())):
            self._shorten_text(record, match["task"])
        return True

    def _shorten_exception(self, record: logging.LogRecord, error: BaseException) -> None:
        expected = find_expected_error(error)
        if str(error).startswith(_UNFULFILLED):
            record.exc_info = record.exc_text = None
            record.msg, record.args = f"{record.getMessage()}: {error}; Luigi runs the dependency first", ()
        elif not isinstance(expected, SystemExit):  # a deliberate exit has recorded its own message
            task = str(record.args[-1]) if isinstance(record.args, tuple) and record.args else ""
            exit_code = expected.exit_code if isinstance(expected, SpamscoreError) else None
            record_failure(f"{task} failed: {describe_error(error)}" if task else describe_error(error), exit_code)
        if expected is not None:
            record.msg = f"{record.getMessage()}: {expected}"
            record.args = ()
            record.exc_info = None
            record.exc_text = None

    def _shorten_text(self, record: logging.LogRecord, task: str) -> None:
        text = record.getMessage().rstrip()
        last_line = text[text.rfind("\n", 0, text.rfind("Error") if "Error" in text else len(text)) + 1 :]
        match = self._LAST_LINE.match(last_line)
        name, reason = (match["name"], match["text"] or "") if match else ("", last_line)
        is_expected = name.startswith("models.errors.")
        exit_code = getattr(errors, name.rpartition(".")[2]).exit_code if is_expected else None
        record_failure(f"{task} failed: {reason if is_expected else last_line}", exit_code)
        if is_expected:
            record.msg, record.args = f"Will not run {task}: {reason}", ()


def describe_error(error: BaseException) -> str:
    """Formats an error as one line for the user. The line of an unexpected error includes its type."""
    expected = find_expected_error(error)
    if expected is not None:
        return str(expected)
    return f"{type(error).__name__}: {error} (unexpected; the traceback is above)"


def find_expected_error(error: BaseException | None) -> SpamscoreError | SystemExit | None:
    """Returns the error that this project raised on purpose, also if another exception wraps it; None if there is none.

    An error of the disk is expected too: see `find_storage_error`.
    """
    while error is not None and not isinstance(error, SpamscoreError | SystemExit):
        if storage_error := find_storage_error(error):
            return storage_error
        error = error.__cause__
    return error


def find_storage_error(error: BaseException) -> StorageError | None:
    """Converts an error of a full, read-only or protected disk to a StorageError; None for any other error.

    TensorFlow gives the path and the reason only in the text of its error.
    """
    text = str(error)
    if not isinstance(error, OSError) and not type(error).__module__.startswith("tensorflow."):
        return None
    for number in _STORAGE_ERRORS:
        reason = os.strerror(number)
        if getattr(error, "errno", None) == number or reason in text:
            match = re.search(rf"(\S+); {reason}", text)
            name = getattr(error, "filename", None) or (match[1] if match else "")
            where = f"{name}: {reason}" if name else f"{Path.cwd()}: {reason}"
            return StorageError(
                f"{where}. Free disk space or grant write permission, and run again; finished work is kept."
            )
    return None


def _record_killed_process(task: luigi.Task, reason: str) -> None:
    """Records a failure for a task whose process was killed: it cannot do so itself, and Luigi only logs it as INFO."""
    number = int(reason.rsplit(maxsplit=1)[-1])
    if number < 0:
        record_failure(
            f"{task} failed: its process was killed by {signal.Signals(-number).name}, perhaps because memory ran out: "
            "see the system's log. Run the same command again; finished work is kept."
        )


def _retract_failures(task: luigi.Task) -> None:
    """Retracts the failures of earlier attempts of a task that succeeded: they no longer decide the exit code."""
    retract_failure(f"{task} failed: ")


def _note_already_complete(task: luigi.Task) -> None:
    """Records a note if the requested task was already complete. Luigi's summary does not name the task.

    A task can add a sentence with a method `describe_completion`.
    """
    command_line = CmdlineParser.get_instance()
    if command_line is not None and command_line.get_task_obj() == task:
        describe: Callable[[], str] = getattr(task, "describe_completion", str)
        record_note(f"{task} was already complete; nothing to do. {describe()}".rstrip(". "))
