"""Explains which words changed the score of a message, and formats the result, for `spamscore explain`.

A message is typed, piped in, or taken from a published batch. A message of a batch is explained with the version that
scored it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.errors import InputError
from pipeline.printing import Column, escape_unprintable, make_table, open_console, print_lines, styled_text
from tasks.artifacts.locations import snapshot_folder
from tasks.artifacts.trainings import verified_training_folder
from tasks.scoring.scorer import load_scorer, load_threshold
from tasks.stage import prepare_tensorflow

if TYPE_CHECKING:
    from rich.console import Console

    from models.evaluation.explanation import Explanation, Part
    from models.inference.scorer import Scorer
    from tasks.database.batches import BatchRow

MAX_TABLE_WORDS = 8
STRONG_CHANGE = 1.0  # in logits; from a probability of 0.27 to 0.5
_SPAM_STYLES, _HAM_STYLES = ("red", "bold red"), ("cyan", "bold cyan")
_MAX_NAMED_MESSAGES = 5  # in one error


@dataclass(frozen=True)
class ExplainedMessage:
    """A message and the words that changed its score. The explanation is None if there is no text to score."""

    message: str
    explanation: Explanation | None
    flagged: bool | None
    threshold: float
    model_version: int
    batch_date: datetime.date | None = None
    message_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore explain --json`."""
        explanation = self.explanation
        origin = {"batch_date": self.batch_date, "message_id": self.message_id} if self.message_id is not None else {}
        return {
            **origin,
            "message": self.message,
            "spam_probability": explanation.probability if explanation else None,
            "flagged": self.flagged,
            "model_version": self.model_version,
            "words": [asdict(part) for part in explanation.parts] if explanation else [],
            "decisive": [part.text for part in explanation.decisive] if explanation else [],
        }


class MessageExplainer:
    """A model version, loaded for explaining scores."""

    def __init__(self, version: int, scorer: Scorer, threshold: float) -> None:
        self.version, self.threshold = version, threshold
        self._scorer = scorer

    def explain(
        self, message: str, date: datetime.date | None = None, message_id: str | None = None
    ) -> ExplainedMessage:
        """Finds the words that changed the score of a message.

        Args:
            message: text of the message.
            date: date of its batch, if it is a message of a batch.
            message_id: its identifier in the batch.
        """
        from models.evaluation.explanation import explain

        if not message.strip():
            return ExplainedMessage(message, None, None, self.threshold, self.version, date, message_id)
        (explanation,) = explain(self._scorer, [message], threshold=self.threshold)
        flagged = explanation.probability >= self.threshold
        return ExplainedMessage(message, explanation, flagged, self.threshold, self.version, date, message_id)


def load_explainer(version: int, checkpoint: str | None = None) -> MessageExplainer:
    """Loads the weights of a version, or those of a checkpoint of its training, onto the configured devices.

    Raises:
        ArtifactError: the version or the checkpoint does not exist, or the files are damaged.
        DeviceError: a configured device is not available.
    """
    training = verified_training_folder(version)
    prepare_tensorflow()
    scorer, _ = load_scorer(training, checkpoint)
    return MessageExplainer(version, scorer, load_threshold(training).value)


def require_texts(batch: BatchRow, message_ids: Sequence[str]) -> dict[str, str]:
    """Reads the texts of messages of a batch from its snapshot.

    Returns:
        The text of each message_id.

    Raises:
        InputError: the snapshot is missing or unreadable, or a message is not in it or has no text; names them.
    """
    from pipeline.answers.summary import read_texts
    from tasks.sources.snapshots import SNAPSHOT_FILE

    folder = snapshot_folder(batch.batch_date, batch.snapshot)
    texts = read_texts(folder, message_ids)
    missing = [message_id for message_id in dict.fromkeys(message_ids) if message_id not in texts]
    if not missing:
        return texts
    if not texts and not _is_readable(folder / SNAPSHOT_FILE):
        raise InputError(
            f"{folder}: the messages of batch {batch.batch_id} are missing or cannot be read, and the database stores "
            "no texts. Restore the folder from a backup."
        )
    more = len(missing) - _MAX_NAMED_MESSAGES
    names = ", ".join(missing[:_MAX_NAMED_MESSAGES]) + (f" and {more} more" if more > 0 else "")
    raise InputError(
        f"batch {batch.batch_id} of {batch.batch_date} has no message with text and message_id {names}. To list its "
        f"messages: spamscore scores {batch.batch_date} --csv"
    )


def _is_readable(path: Any) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def print_explanation(message: ExplainedMessage) -> None:
    """Prints an explanation for a person: coloured in a terminal, with the changes as numbers elsewhere."""
    from rich.padding import Padding

    console = open_console()
    if message.explanation is None:
        print_lines(["Probability of spam: nan (there is no text to score)"])
        return
    result = f"Probability of spam: {message.explanation.probability:.4f}"
    verdict = f" ({'flagged' if message.flagged else 'not flagged'}, version {message.model_version})"
    decisive_lines = format_decisive_words(message)
    if not console.is_terminal:
        words = format_words_with_changes(message.explanation)
        print_lines([result + verdict, f"  {words}", *(f"  {line}" for line in decisive_lines)])
        return
    console.print(styled_text("").append(result, "bold red" if message.flagged else "bold").append(verdict, "dim"))
    _draw(console, message.explanation)
    for line in decisive_lines:
        console.print()
        console.print(Padding(styled_text(line), (0, 0, 0, 2)))


def format_decisive_words(message: ExplainedMessage) -> list[str]:
    """Returns a line with the words whose removal, together, reverses the verdict; no line if there are none."""
    if message.explanation is None or not message.explanation.decisive:
        return []
    words = ", ".join(escape_unprintable(part.text) for part in message.explanation.decisive)
    return [f"{'Not flagged' if message.flagged else 'Flagged'} without: {words}"]


def _draw(console: Console, explanation: Explanation) -> None:
    from rich.padding import Padding

    if console.no_color:
        console.print(Padding(styled_text(format_words_with_changes(explanation)), (0, 0, 0, 2)))
        return
    text = styled_text("")
    for space, part in _iterate_with_spaces(explanation):
        text.append(space).append(escape_unprintable(part.text), _select_style(part.change))
    console.print(Padding(text, (0, 0, 0, 2)))
    if strongest := explanation.strongest(MAX_TABLE_WORDS):
        console.print()
        console.print(_make_word_table(strongest))


def _select_style(change: float) -> str:
    from models.evaluation.explanation import MIN_CHANGE

    if abs(change) < MIN_CHANGE:
        return ""
    return (_SPAM_STYLES if change > 0 else _HAM_STYLES)[abs(change) >= STRONG_CHANGE]


def _make_word_table(parts: Sequence[Part]) -> Any:
    table = make_table([Column("", align_right=True), Column("", wrap=True), Column("")])
    for part in parts:
        table.add_row(
            styled_text(f"  {part.change:+.2f}", _select_style(part.change)),
            styled_text(escape_unprintable(part.text)),
            styled_text(f"{part.probability_without:.4f} without it", "dim"),
        )
    return table


def format_words_with_changes(explanation: Explanation) -> str:
    """Formats a message with the change in logits after each word that changed the score."""
    from models.evaluation.explanation import MIN_CHANGE

    return "".join(
        space + escape_unprintable(part.text) + (f"[{part.change:+.2f}]" if abs(part.change) >= MIN_CHANGE else "")
        for space, part in _iterate_with_spaces(explanation)
    )


def _iterate_with_spaces(explanation: Explanation) -> Iterator[tuple[str, Part]]:
    """Yields each part, preceded by one space if anything separates it from the part before."""
    previous_end = explanation.parts[0].start if explanation.parts else 0
    for part in explanation.parts:
        yield " " if part.start > previous_end else "", part
        previous_end = part.end


def format_plain_lines(message: ExplainedMessage) -> list[str]:
    """Returns one line per word, separated by tabs: change, probability without the word, word."""
    parts = message.explanation.parts if message.explanation else ()
    return [f"{part.change:+.6f}\t{part.probability_without:.6f}\t{escape_unprintable(part.text)}" for part in parts]
