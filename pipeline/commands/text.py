"""`spamscore text`: spam probabilities of messages that are typed or piped in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.commands.context import read_settings
from pipeline.commands.options import POSITIVE_INTEGER, checkpoint_option, examples, format_option, status_line
from pipeline.printing import print_lines

if TYPE_CHECKING:
    from pipeline.answers.probabilities import Prediction
    from pipeline.client.asking import ServedPrediction


@click.command(
    short_help="Compute the spam probability of messages.",
    epilog=examples(
        'spamscore text "You have WON a prize! Reply YES to claim"',
        'spamscore text --json "Lunch at one?" "FREE entry, text WIN to 80086"',
        "spamscore text                                  asks for messages",
        "spamscore text --plain < messages.txt           one number per line",
        "paste <(spamscore text --plain < m.txt) m.txt   number and message side by side",
        'spamscore text --checkpoint ckpt-72 "Lunch at one?"      with the weights of step 72 of the training',
        "spamscore text -- -20% today only               nothing after -- is read as an option",
    ),
)
@click.argument("messages", metavar="[MESSAGE]...", nargs=-1)
@format_option("plain", "Print only the numbers, with six decimals, one per line.")
@format_option("json", "Print one JSON object per line: message, spam_probability, flagged, model_version.")
@click.option(
    "--model-version",
    type=POSITIVE_INTEGER,
    metavar="N",
    help="Use this model version instead of the one in service.",
)
@checkpoint_option
def text(
    messages: tuple[str, ...], output_format: str | None, model_version: int | None, checkpoint: str | None
) -> None:
    """Compute the spam probability of each MESSAGE.

    Without MESSAGE, a terminal asks for messages until an empty line. From a pipe or file, each line is one message,
    and each line is answered as soon as it arrives.

    There is one answer per line, in the order of the lines. An empty line has no probability: nan (null in JSON). A
    message that cannot be scored has none either. Bytes that are not UTF-8 are read as U+FFFD.

    With --checkpoint the weights are those of the step at which the checkpoint was written, not the best ones so far.
    Calibration and threshold are those of the version. The last checkpoint of a training has the weights of the
    version.
    """
    read_settings()
    from pipeline.answers import probabilities

    interactive = not messages and sys.stdin is not None and sys.stdin.isatty()
    version = probabilities.resolve_version(model_version)
    with status_line(f"Loading model version {version} …"):
        model = probabilities.load_version(version, checkpoint)
    if messages:
        decoded = [probabilities.decode_argument(message) for message in messages]
        print_predictions(model.predict(decoded), output_format, show_message=len(messages) > 1)
    elif interactive:
        for message in probabilities.prompt_messages("Message: "):
            print_predictions(model.predict([message]), output_format, show_message=False)
    elif sys.stdin is not None:
        for batch in probabilities.read_line_batches(sys.stdin.buffer):
            print_predictions(model.predict(batch), output_format, show_message=True)


def print_predictions(
    predictions: Sequence[Prediction | ServedPrediction], output_format: str | None, show_message: bool
) -> None:
    """Prints predictions as `spamscore text` does: for a person, as numbers, or as JSON lines."""
    if output_format == "json":
        print_lines(printing.format_json(prediction.to_dict()) for prediction in predictions)
    elif output_format == "plain":
        print_lines(
            "nan" if prediction.spam_probability is None else f"{prediction.spam_probability:.6f}"
            for prediction in predictions
        )
    else:
        _show_predictions(predictions, show_message)
    sys.stdout.flush()


def _show_predictions(predictions: Sequence[Prediction | ServedPrediction], show_message: bool) -> None:
    console = printing.open_console()
    for prediction in predictions:
        number = "nan" if prediction.spam_probability is None else f"{prediction.spam_probability:.4f}"
        result = f"Probability of spam: {number}"
        message = ""
        if show_message and prediction.message:
            message = f"  {printing.truncate(prediction.message, console.width - len(result) - 2)}"
        if console.is_terminal:
            style = "bold red" if prediction.flagged else "bold"
            line = printing.styled_text("Probability of spam: ").append(number, style)
            console.print(line.append(message), soft_wrap=True)
        else:  # many times faster than Rich: a file may have millions of lines
            print_lines([result + message])
