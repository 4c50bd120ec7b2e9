"""`spamscore ask`: spam probabilities of messages, from a model server."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import examples, format_option
from pipeline.commands.serving.server_options import server_options
from pipeline.commands.text import print_predictions

if TYPE_CHECKING:
    from pipeline.client.server import ModelServer


@click.command(
    short_help="Ask a model server for the spam probability of messages.",
    epilog=examples(
        'spamscore ask "You have WON a prize! Reply YES to claim"',
        'spamscore ask --server models.internal:8500 --tls --json "Lunch at one?"',
        "spamscore ask --plain < messages.txt                        one number per line",
        'spamscore ask --label canary "Lunch at one?"                the candidate (spamscore serve N --canary)',
        'spamscore ask --rest --server https://proxy.internal/serving "Lunch at one?"',
    ),
)
@click.argument("messages", metavar="[MESSAGE]...", nargs=-1)
@format_option("plain", "Print only the numbers, with six decimals, one per line.")
@format_option("json", "Print one JSON object per line: message, spam_probability, model_version.")
@click.option("--classify", is_flag=True, help="Call Classify with the default signature, instead of Predict.")
@server_options
def ask(messages: tuple[str, ...], output_format: str | None, classify: bool, server: ModelServer, rest: bool) -> None:
    """Ask TensorFlow Serving, or another server with its protocol, for the spam probability of each MESSAGE.

    Without MESSAGE, a terminal asks for messages until an empty line. From a pipe or file, each line is one message,
    and each line is answered as soon as it arrives. An empty line is not sent: nan (null in JSON).

    The version that answered is in the JSON. The answer has no verdict, because the threshold is not part of the served
    model: `spamscore models` shows the threshold of each version.

    A call is tried again, [serving] retries times with growing pauses, if the server is unreachable or overloaded, and
    never after --timeout. A token in SPAMSCORE_SERVING_TOKEN is sent as authorization: Bearer.
    """
    from pipeline.answers.probabilities import decode_argument, prompt_messages, read_line_batches
    from pipeline.client import asking

    with contextlib.closing(asking.open_client(server, rest)) as client:
        if messages:
            predictions = asking.ask(client, [decode_argument(message) for message in messages], classify)
            print_predictions(predictions, output_format, show_message=len(messages) > 1)
        elif sys.stdin is not None and sys.stdin.isatty():
            for message in prompt_messages("Message: "):
                print_predictions(asking.ask(client, [message], classify), output_format, show_message=False)
        elif sys.stdin is not None:
            for batch in read_line_batches(sys.stdin.buffer):
                print_predictions(asking.ask(client, batch, classify), output_format, show_message=True)
