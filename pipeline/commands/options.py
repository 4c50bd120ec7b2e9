"""Arguments, options, help sections, prompts and notes that several commands share."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from models.errors import InputError
from pipeline.command_group import FAILED
from pipeline.commands.context import read_settings
from tasks.scheduler.calendar import current_date


class DateType(click.ParamType[datetime.date]):
    """A date such as 2026-01-31, or one of the words today and yesterday, in [messages] timezone."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.date:
        """Converts the argument to a date."""
        days_ago = {"today": 0, "yesterday": 1}
        if value in days_ago:
            read_settings()
            return current_date() - datetime.timedelta(days=days_ago[value])
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r}: expected a date such as 2026-01-31, yesterday or today.", param, ctx)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Completes the two words."""
        return [CompletionItem(word) for word in ("yesterday", "today") if word.startswith(incomplete)]


Command = TypeVar("Command", bound=Callable[..., Any])
POSITIVE_INTEGER = click.IntRange(min=1)


def format_option(name: str, help_text: str) -> Callable[[Command], Command]:
    """Adds a flag that selects the output format; if several are given, the last one is used."""
    return click.option(f"--{name}", "output_format", flag_value=name, default=None, help=help_text)


def checkpoint_option(command: Command) -> Command:
    """Adds the option that selects a checkpoint of the training of a model version."""
    return click.option(
        "--checkpoint",
        metavar="NAME",
        help="Use the weights of this checkpoint of the version's training, such as ckpt-72 (spamscore checkpoints).",
    )(command)


def yes_option(command: Command) -> Command:
    """Adds the option that skips the confirmation."""
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(command)


def examples(*lines: str) -> str:
    """Returns the section of examples for the end of a help text; click does not rewrap it."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def exit_codes(meanings: dict[int, str]) -> str:
    """Returns the section of exit codes for the end of a help text; click does not rewrap it."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code:<5}{meaning}" for code, meaning in meanings.items())


def confirm(question: str, yes: bool) -> None:
    """Asks for confirmation in the terminal, unless `yes` is set. Exits with code 1 if the answer is no.

    Raises:
        InputError: there is no terminal.
    """
    if yes:
        return
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(f"{question} There is no terminal to ask in, and nothing was changed. To confirm, add --yes")
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print_note("nothing was changed")
        raise click.exceptions.Exit(FAILED)


def print_note(line: str) -> None:
    """Prints a note on standard error, so that a program that reads standard output does not see it."""
    click.echo(f"spamscore: {line}", err=True)


@contextlib.contextmanager
def status_line(line: str) -> Iterator[None]:
    """Shows a line in the terminal while the `with` block runs, and clears it afterwards."""
    terminal = sys.stderr.isatty()
    if terminal:
        click.echo(line, nl=False, err=True)
    try:
        yield
    finally:
        if terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
