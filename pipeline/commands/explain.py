"""`spamscore explain`: which words moved the score of a message."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.commands.context import open_scores, read_settings, require_published
from pipeline.commands.options import NUMBER, Date, examples, form, said_meanwhile
from pipeline.printing import print_lines

if TYPE_CHECKING:
    from pipeline.answers.explanations import Explained

_Asked = tuple[str, datetime.date | None, str | None]


@click.command(
    short_help="Show which words moved a message's score.",
    epilog=examples(
        'spamscore explain "You have WON a prize! Reply YES to claim"',
        "spamscore explain --date yesterday --message-id sms-17",
        "spamscore explain --plain < message.txt | sort -rn     the words that speak most for spam first",
        "spamscore explain --json \"Lunch at one?\" | jq '.words[] | select(.change > 1) | .text'",
    ),
)
@click.argument("messages", metavar="[MESSAGE]...", nargs=-1)
@click.option("--date", type=Date(), help="Date of a published batch, whose messages --message-id names.")
@click.option("--message-id", "ids", metavar="ID", multiple=True, help="A message of the batch; may be given again.")
@form("plain", "A line a word with tabs between change, probability without it, and the word.")
@form("json", "A JSON object a line: message, spam_probability, flagged, model_version, words, decisive.")
@click.option(
    "--model-version",
    type=NUMBER,
    metavar="N",
    help="Version of the model instead of the one in service or, with --date, the one that scored the batch.",
)
def explain(
    messages: tuple[str, ...],
    date: datetime.date | None,
    ids: tuple[str, ...],
    form: str | None,
    model_version: int | None,
) -> None:
    """Show which words moved the score of each MESSAGE, of each line of standard input, or of messages of a batch.

    The message is scored again without each of its words; the number of a word is how much lower the score is then, in
    logits: above 0 (red) it speaks for spam, below (cyan) for ham, and one of +1.00 turns a probability of 0.27 into
    0.50. They do not add up to the score: of two words that say the same, each alone moves it little. So up to five
    words are named without which, together, the verdict would be another, if there are such. Of a message with more
    than 200 words, runs of words are left out. The text of a message of a batch is read from the snapshot that was
    scored.
    """
    if bool(date) != bool(ids) or (ids and messages):
        raise click.UsageError("expected messages, or --date with --message-id")
    read_settings()
    from pipeline.answers import explanations, probabilities

    if date:
        batch = require_published(open_scores(), date)
        version = probabilities.chosen_version(model_version or batch.model_version)
        texts = explanations.require_texts(batch, ids)
        asked: Iterator[_Asked] = iter([(texts[key], date, key) for key in dict.fromkeys(ids)])
    else:
        version = probabilities.chosen_version(model_version)
        asked = ((message, None, None) for message in _given(messages))
    with said_meanwhile(f"Loading version {version} of the model …"):
        model = explanations.open_explainer(version)
    for number, one in enumerate(asked):
        _print(model.explained(*one), form, first=number == 0)


def _given(messages: tuple[str, ...]) -> Iterator[str]:
    """The arguments; or what is typed, or the lines that are piped in."""
    from pipeline.answers import probabilities

    if messages:
        yield from map(probabilities.argument_text, messages)
    elif sys.stdin is not None and sys.stdin.isatty():
        yield from probabilities.typed_messages("Message: ")
    elif sys.stdin is not None:
        for lines in probabilities.line_batches(sys.stdin.buffer):
            yield from lines


def _print(one: Explained, form: str | None, first: bool) -> None:
    from pipeline.answers import explanations

    if form == "json":
        print_lines([printing.as_json(one.to_dict())])
    elif form == "plain":
        print_lines(explanations.plain_lines(one))
    else:
        print_lines([] if first else [""])
        explanations.print_explained(one)
    sys.stdout.flush()
