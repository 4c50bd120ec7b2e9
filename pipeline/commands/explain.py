"""`spamscore explain`: the words that changed the score of a message."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.commands.context import connect_database, read_settings, require_published
from pipeline.commands.options import POSITIVE_INTEGER, DateType, examples, format_option, status_line
from pipeline.printing import print_lines

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage

# Text, date of its batch, message_id.
_Request = tuple[str, datetime.date | None, str | None]


@click.command(
    short_help="Show which words changed the score of a message.",
    epilog=examples(
        'spamscore explain "You have WON a prize! Reply YES to claim"',
        "spamscore explain --date yesterday --message-id sms-17",
        "spamscore explain --plain < message.txt | sort -rn     strongest words for spam first",
        "spamscore explain --json \"Lunch at one?\" | jq '.words[] | select(.change > 1) | .text'",
    ),
)
@click.argument("messages", metavar="[MESSAGE]...", nargs=-1)
@click.option("--date", type=DateType(), help="Date of the published batch that has the --message-id.")
@click.option("--message-id", "ids", metavar="ID", multiple=True, help="Message of the batch; can be repeated.")
@format_option("plain", "Print one line per word, separated by tabs: change, probability without the word, word.")
@format_option(
    "json", "Print one JSON object per line: message, spam_probability, flagged, model_version, words, decisive."
)
@click.option(
    "--model-version",
    type=POSITIVE_INTEGER,
    metavar="N",
    help="Use this model version; default: the one in service or, with --date, the weights that scored the batch.",
)
def explain(
    messages: tuple[str, ...],
    date: datetime.date | None,
    ids: tuple[str, ...],
    output_format: str | None,
    model_version: int | None,
) -> None:
    """Show which words changed the score of each MESSAGE, of each line of standard input, or of messages of a batch.

    Each word is removed and the message is scored again. The change of a word is how much lower the score is without
    it, in logits: above 0 (red) the word indicates spam, below 0 (cyan) ham. A change of +1.00 raises a probability
    from 0.27 to 0.50.

    The changes do not add up to the score: if two words carry the same meaning, removing one of them changes little.
    Therefore up to five words are listed whose removal, together, reverses the verdict, if there are any.

    In a message with more than 200 words, runs of words are removed instead of single words. The text of a message of
    a batch is read from the snapshot of the batch.
    """
    if bool(date) != bool(ids) or (ids and messages):
        raise click.UsageError("expected messages, or --date with --message-id")
    read_settings()
    from pipeline.answers import explanations, probabilities

    checkpoint = None
    if date:
        batch = require_published(connect_database(), date)
        version = probabilities.resolve_version(model_version or batch.model_version)
        checkpoint = None if model_version else batch.chosen_checkpoint
        texts = explanations.require_texts(batch, ids)
        requests: Iterator[_Request] = iter(
            [(texts[message_id], date, message_id) for message_id in dict.fromkeys(ids)]
        )
    else:
        version = probabilities.resolve_version(model_version)
        requests = ((message, None, None) for message in _read_messages(messages))
    with status_line(f"Loading model version {version} …"):
        explainer = explanations.load_explainer(version, checkpoint)
    for number, request in enumerate(requests):
        _print(explainer.explain(*request), output_format, first=number == 0)


def _read_messages(arguments: tuple[str, ...]) -> Iterator[str]:
    """Yields the arguments or, without any, the messages that are typed or piped in."""
    from pipeline.answers import probabilities

    if arguments:
        yield from map(probabilities.decode_argument, arguments)
    elif sys.stdin is not None and sys.stdin.isatty():
        yield from probabilities.prompt_messages("Message: ")
    elif sys.stdin is not None:
        for lines in probabilities.read_line_batches(sys.stdin.buffer):
            yield from lines


def _print(message: ExplainedMessage, output_format: str | None, first: bool) -> None:
    from pipeline.answers import explanations

    if output_format == "json":
        print_lines([printing.format_json(message.to_dict())])
    elif output_format == "plain":
        print_lines(explanations.format_plain_lines(message))
    else:
        print_lines([] if first else [""])
        explanations.print_explanation(message)
    sys.stdout.flush()
