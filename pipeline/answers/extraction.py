"""Describes the snapshot of a date and what happens if its messages are read again, for `spamscore extract`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError
from tasks.artifacts.source_files import SnapshotOrigin, read_origin
from tasks.extract_messages import ExtractMessages
from tasks.sources.paths import find_files

if TYPE_CHECKING:
    import datetime

    from tasks.database.batches import BatchRow


@dataclass(frozen=True)
class Snapshot:
    """The snapshot of a date that the next run with the same settings scores.

    Attributes:
        date: date of the messages.
        folder: its folder.
        origin: what its manifest says.
        published: the published batch of the date; None if there is none.
    """

    date: datetime.date
    folder: Path
    origin: SnapshotOrigin
    published: BatchRow | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore extract --json`."""
        return {
            "date": self.date,
            "snapshot": str(self.folder),
            **dataclasses.asdict(self.origin),
            "changes": self.origin.find_changes(),
            "published_batch": self.published.batch_id if self.published else None,
        }


def find_snapshot(date: datetime.date, published: BatchRow | None) -> Snapshot:
    """Returns the snapshot of a date.

    Raises:
        InputError: there is none; says what the next run does.
        ArtifactError: its manifest is damaged.
    """
    folder = ExtractMessages(date=date).output().path
    origin = read_origin(folder)
    if origin is None:
        raise InputError(
            f"there is no snapshot of the messages of {date} with these settings ({folder}): the next run of the date "
            f"reads them. To read them now: luigi --module pipeline ExtractMessages --date {date}"
        )
    return Snapshot(date, folder, origin, published)


def format_again_question(date: datetime.date, published: BatchRow | None) -> str:
    """Formats the question before the messages of a date are read again."""
    until = f"; batch {published.batch_id} stays published until then" if published else ""
    return f"The next run of {date} will read its messages from the source again{until}. {describe_missing(date)}Do it?"


def describe_missing(date: datetime.date) -> str:
    """Returns a sentence, with a space after it, about files of the source that do not exist now; empty if all do."""
    missing = [file.path for file in ExtractMessages(date=date).requires() if not find_files(file.located())]
    return f"{', '.join(missing)} does not exist now, and that run will need it. " if missing else ""
