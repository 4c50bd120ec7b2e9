"""The group that the commands are in: every failure ends in one line and an honest exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any

import click

from models.errors import DatabaseError, SettingsError, SpamscoreError
from pipeline import printing

FAILED, USAGE, DATABASE, INTERRUPTED, BROKEN_PIPE = 1, 2, 35, 130, 141


class Commands(click.Group):
    """The commands in the order they are written in; every failure ends in one line and an honest exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names for the help."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            ctx.exit(_ended_by(error))
        return result


def _ended_by(error: BaseException) -> int:
    """Says why a command failed, and gives its exit code."""
    if isinstance(error, KeyboardInterrupt):
        click.echo(err=True)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return BROKEN_PIPE
    click.echo(f"spamscore: {_reason(error)}", err=True)
    if isinstance(error, SettingsError):
        return USAGE
    return DATABASE if isinstance(error, DatabaseError) else FAILED


def _reason(error: BaseException) -> str:
    if isinstance(error, SpamscoreError):
        return printing.visible(str(error))
    if isinstance(error, OSError) and error.strerror:
        _silence_stdout()
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return printing.visible(f"{type(error).__name__}: {error} (unexpected; `spamscore --debug …` shows where)")


def _silence_stdout() -> None:
    """Nothing more is written where it cannot be: what is left in the buffer would fail again as Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
