"""Which words moved the score of a message: what `spamscore explain` answers, and how it shows it.

A message is typed, piped in, or one of a published batch; that one is explained by the version that scored it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.errors import InputError
from pipeline.printing import Column, grid, page, print_lines, styled, visible
from tasks.artifacts.locations import snapshot_folder
from tasks.artifacts.trainings import verified_training_folder
from tasks.scoring.scorer import load_scorer, threshold_of
from tasks.stage import prepare_tensorflow

if TYPE_CHECKING:
    from rich.console import Console

    from models.evaluation.explanation import Explanation, Part
    from models.inference.scorer import Scorer
    from tasks.database.batches import BatchRow

MOST_WORDS = 8
_STRONG = 1.0  # a change of the logit that turns a probability of 0.27 into 0.5
_SPAM_STYLES, _HAM_STYLES = ("red", "bold red"), ("cyan", "bold cyan")
_NAMED = 5  # messages that an error names


@dataclass(frozen=True)
class Explained:
    """A message and the words that moved its score; nothing but the message where there is nothing to score."""

    message: str
    explanation: Explanation | None
    flagged: bool | None
    model_version: int
    batch_date: datetime.date | None = None
    message_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        found = self.explanation
        of = {"batch_date": self.batch_date, "message_id": self.message_id} if self.message_id is not None else {}
        return {
            **of,
            "message": self.message,
            "spam_probability": found.probability if found else None,
            "flagged": self.flagged,
            "model_version": self.model_version,
            "words": [asdict(part) for part in found.parts] if found else [],
            "decisive": [part.text for part in found.decisive] if found else [],
        }


class OpenExplainer:
    """A version of the model, loaded to explain."""

    def __init__(self, version: int, scorer: Scorer, threshold: float) -> None:
        self.version, self.threshold = version, threshold
        self._scorer = scorer

    def explained(self, message: str, date: datetime.date | None = None, message_id: str | None = None) -> Explained:
        """What moved the score of a message.

        Args:
            message: its text.
            date: of the batch that it is of, if it is of one.
            message_id: what identifies it there.
        """
        from models.evaluation.explanation import explain

        if not message.strip():
            return Explained(message, None, None, self.version, date, message_id)
        (found,) = explain(self._scorer, [message], threshold=self.threshold)
        return Explained(message, found, found.probability >= self.threshold, self.version, date, message_id)


def open_explainer(version: int) -> OpenExplainer:
    """Loads the latest checkpoint of a version onto the chosen devices.

    Raises:
        ArtifactError: there is no such version, or its checkpoints are gone or damaged.
        DeviceError: a chosen device is not there.
    """
    training = verified_training_folder(version)
    prepare_tensorflow()
    scorer, _ = load_scorer(training)
    return OpenExplainer(version, scorer, threshold_of(training).value)


def require_texts(batch: BatchRow, message_ids: Sequence[str]) -> dict[str, str]:
    """The texts of messages of a batch, from the snapshot that was scored.

    Raises:
        InputError: the snapshot is gone or cannot be read, or has no such message, or it has no text; names them.
    """
    from pipeline.answers.summary import texts_of
    from tasks.sources.snapshots import SNAPSHOT_FILE

    folder = snapshot_folder(batch.batch_date, batch.snapshot)
    texts = texts_of(folder, message_ids)
    missing = [one for one in dict.fromkeys(message_ids) if one not in texts]
    if not missing:
        return texts
    if not texts and not _is_readable(folder / SNAPSHOT_FILE):
        raise InputError(
            f"{folder}: the messages of batch {batch.batch_id} are not here, or cannot be read, and no text is in the "
            "database. Bring the folder back from a backup."
        )
    named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    raise InputError(
        f"no message with text in batch {batch.batch_id} of {batch.batch_date} is {named}. Those there are: spamscore "
        f"scores {batch.batch_date} --csv"
    )


def _is_readable(path: Any) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def print_explained(one: Explained) -> None:
    """Shows a person what moved a score: coloured in a terminal, with the numbers beside the words elsewhere."""
    from rich.padding import Padding

    console = page()
    if one.explanation is None:
        print_lines(["Probability of spam: nan (there is no text to score)"])
        return
    said = f"Probability of spam: {one.explanation.probability:.4f}"
    verdict = f" ({'flagged' if one.flagged else 'not flagged'}, version {one.model_version})"
    if not console.is_terminal:
        print_lines([said + verdict, f"  {numbered(one.explanation)}", *(f"  {line}" for line in decided_by(one))])
        return
    console.print(styled("").append(said, "bold red" if one.flagged else "bold").append(verdict, "dim"))
    _draw(console, one.explanation)
    for line in decided_by(one):
        console.print()
        console.print(Padding(styled(line), (0, 0, 0, 2)))


def decided_by(one: Explained) -> list[str]:
    """A line with the words without which, together, the verdict would be another; none if no few words decide it."""
    if one.explanation is None or not one.explanation.decisive:
        return []
    words = ", ".join(visible(part.text) for part in one.explanation.decisive)
    return [f"{'Not flagged' if one.flagged else 'Flagged'} without: {words}"]


def _draw(console: Console, found: Explanation) -> None:
    from rich.padding import Padding

    if console.no_color:
        console.print(Padding(styled(numbered(found)), (0, 0, 0, 2)))
        return
    text = styled("")
    for gap, part in _spaced(found):
        text.append(gap).append(visible(part.text), _style(part.change))
    console.print(Padding(text, (0, 0, 0, 2)))
    if strongest := found.strongest(MOST_WORDS):
        console.print()
        console.print(_table(strongest))


def _style(change: float) -> str:
    from models.evaluation.explanation import SLIGHT

    if abs(change) < SLIGHT:
        return ""
    return (_SPAM_STYLES if change > 0 else _HAM_STYLES)[abs(change) >= _STRONG]


def _table(parts: Sequence[Part]) -> Any:
    table = grid([Column("", right=True), Column("", wraps=True), Column("")])
    for part in parts:
        change = styled(f"  {part.change:+.2f}", _style(part.change))
        table.add_row(change, styled(visible(part.text)), styled(f"{part.probability_without:.4f} without it", "dim"))
    return table


def numbered(found: Explanation) -> str:
    """The message with the change of the logit behind each word that moved the score."""
    from models.evaluation.explanation import SLIGHT

    return "".join(
        gap + visible(part.text) + (f"[{part.change:+.2f}]" if abs(part.change) >= SLIGHT else "")
        for gap, part in _spaced(found)
    )


def _spaced(found: Explanation) -> Iterator[tuple[str, Part]]:
    """Each part, and before it one space for whatever parts it from the one before."""
    end = found.parts[0].start if found.parts else 0
    for part in found.parts:
        yield " " if part.start > end else "", part
        end = part.end


def plain_lines(one: Explained) -> list[str]:
    """For a program: a line a word with tabs between change, probability without it, and the word."""
    parts = one.explanation.parts if one.explanation else ()
    return [f"{part.change:+.6f}\t{part.probability_without:.6f}\t{visible(part.text)}" for part in parts]
