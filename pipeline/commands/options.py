"""What commands share of their form: arguments, options, examples, a question, a remark."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from models.errors import InputError
from pipeline.commands.group import FAILED


class Date(click.ParamType[datetime.date]):
    """A date as 2026-01-31, or the words today and yesterday."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.date:
        """Turns the argument into a date."""
        words = {"today": 0, "yesterday": 1}
        if value in words:
            return datetime.date.today() - datetime.timedelta(days=words[value])
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
        """Offers the two words."""
        return [CompletionItem(word) for word in ("yesterday", "today") if word.startswith(incomplete)]


Command = TypeVar("Command", bound=Callable[..., Any])
NUMBER = click.IntRange(min=1)


def form(name: str, meaning: str) -> Callable[[Command], Command]:
    """An option that chooses the form of the answer; of several the last holds."""
    return click.option(f"--{name}", "form", flag_value=name, default=None, help=meaning)


def yes_option(command: Command) -> Command:
    """The option that answers a question with yes."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def examples(*lines: str) -> str:
    """An epilog of examples that click leaves as they stand."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def ask(question: str, yes: bool) -> None:
    """Asks a person, unless told that the answer is yes.

    Raises:
        InputError: there is nobody to ask.
    """
    if yes:
        return
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(f"{question} There is no terminal to ask in, and nothing was changed: answer with --yes")
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        remark("nothing was changed")
        raise click.exceptions.Exit(FAILED)


def remark(line: str) -> None:
    """Says something beside the answer, where a program that reads the answer does not see it."""
    click.echo(f"spamscore: {line}", err=True)


@contextlib.contextmanager
def said_meanwhile(line: str) -> Iterator[None]:
    """Shows a line on a terminal while something takes long."""
    watched = sys.stderr.isatty()
    if watched:
        click.echo(line, nl=False, err=True)
    try:
        yield
    finally:
        if watched:
            click.echo("\r\x1b[K", nl=False, err=True)
