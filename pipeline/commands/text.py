"""`spamscore text`: how likely messages are spam."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.commands.context import read_settings
from pipeline.commands.options import examples, form, said_meanwhile
from pipeline.printing import print_lines

if TYPE_CHECKING:
    from pipeline.answers.probabilities import Answer


@click.command(
    short_help="Say how likely messages are spam.",
    epilog=examples(
        'spamscore text "You have WON a prize! Reply YES to claim"',
        'spamscore text --json "Lunch at one?" "FREE entry, text WIN to 80086"',
        "spamscore text                                  asks for messages",
        "spamscore text --plain < messages.txt           a number for each line",
        "paste <(spamscore text --plain < m.txt) m.txt   both, side by side",
        "spamscore text -- -20% today only               after -- nothing is an option",
    ),
)
@click.argument("messages", metavar="[MESSAGE]...", nargs=-1)
@form("plain", "Bare numbers with six decimals, one a line.")
@form("json", "A JSON object a line: message, spam_probability, flagged, model_version.")
@click.option(
    "--model-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Version of the model instead of the one in service.",
)
def text(messages: tuple[str, ...], form: str | None, model_version: int | None) -> None:
    """Say how likely messages are spam.

    Each MESSAGE is scored. Without any, a terminal asks for messages until an empty line; a pipe or file gives one a
    line, answered as they come. The answers keep the order and number of the lines: an empty line, which no batch
    scores either, gives nan (null in JSON), and so does one that makes scoring itself fail. Bytes that are not UTF-8
    are read as U+FFFD.
    """
    read_settings()
    from pipeline.answers import probabilities

    asks = not messages and sys.stdin is not None and sys.stdin.isatty()
    version = probabilities.chosen_version(model_version)
    with said_meanwhile(f"Loading version {version} of the model …"):
        model = probabilities.open_model(version)
    if messages:
        _print_answers(
            model.answers([probabilities.argument_text(one) for one in messages]), form, beside=len(messages) > 1
        )
    elif asks:
        for message in probabilities.typed_messages("Message: "):
            _print_answers(model.answers([message]), form, beside=False)
    elif sys.stdin is not None:
        for batch in probabilities.line_batches(sys.stdin.buffer):
            _print_answers(model.answers(batch), form, beside=True)


def _print_answers(answers: list[Answer], form: str | None, beside: bool) -> None:
    if form == "json":
        print_lines(printing.as_json(dataclasses.asdict(one)) for one in answers)
    elif form == "plain":
        print_lines("nan" if one.spam_probability is None else f"{one.spam_probability:.6f}" for one in answers)
    else:
        _show_answers(answers, beside)
    sys.stdout.flush()


def _show_answers(answers: list[Answer], beside: bool) -> None:
    console = printing.page()
    for one in answers:
        number = "nan" if one.spam_probability is None else f"{one.spam_probability:.4f}"
        said = f"Probability of spam: {number}"
        message = (
            f"  {printing.shortened(one.message, console.width - len(said) - 2)}" if beside and one.message else ""
        )
        if console.is_terminal:
            line = printing.styled("Probability of spam: ").append(number, "bold red" if one.flagged else "bold")
            console.print(line.append(message), soft_wrap=True)
        else:  # many times faster, for a file may have millions
            print_lines([said + message])
