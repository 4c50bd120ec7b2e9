"""The click group of the commands: it ends every failure with one line on standard error and a defined exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any

import click

from models.errors import DatabaseError, SettingsError, SpamscoreError
from pipeline import printing

SUCCESS, FAILED, USAGE, DATABASE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 35, 130, 141
# The exit codes of `spamscore` and their meaning; the help and the documentation are made from this table.
EXIT_CODES = {
    SUCCESS: "success",
    FAILED: "the command failed, `verify` found a difference, or a question was answered with no",
    USAGE: "bad argument or bad setting",
    DATABASE: "the database cannot be used",
    INTERRUPTED: "interrupted with ^C",
    BROKEN_PIPE: "the program that read the output has ended, as `head` does",
}


class CommandGroup(click.Group):
    """Lists the commands in the order of their definition, and turns every failure into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Returns the names of the commands, in the order of the help."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; on an error, prints one line and exits with a code of `EXIT_CODES`."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            ctx.exit(_report_error(error))
        return result


def _report_error(error: BaseException) -> int:
    """Prints why a command failed, and returns its exit code."""
    if isinstance(error, KeyboardInterrupt):
        click.echo(err=True)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return BROKEN_PIPE
    click.echo(f"spamscore: {_format_error(error)}", err=True)
    if isinstance(error, SettingsError):
        return USAGE
    return DATABASE if isinstance(error, DatabaseError) else FAILED


def _format_error(error: BaseException) -> str:
    if isinstance(error, SpamscoreError):
        return printing.escape_unprintable(str(error))
    if isinstance(error, OSError) and error.strerror:
        _silence_stdout()
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return printing.escape_unprintable(
        f"{type(error).__name__}: {error} (unexpected error; `spamscore --debug …` shows the traceback)"
    )


def _silence_stdout() -> None:
    """Redirects standard output to /dev/null: what is left in its buffer would fail again when Python exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
