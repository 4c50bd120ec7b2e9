"""ExtractMessages: the messages of one date into a snapshot, once.

What identifies a message and when it was sent is told by the columns that [messages] names; what the snapshot looks
like is `tasks.sources.snapshots`'s part.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.artifacts.fingerprint import file_sha256
from tasks.artifacts.folders import MANIFEST, FolderTarget
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import SNAPSHOTS, snapshot_folder
from tasks.scheduler.parameters import YesterdayParameter
from tasks.scheduler.progress import reporting
from tasks.settings.inputs import MessagesSettings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings
from tasks.sources.rows import SourceRow
from tasks.sources.samples import bundled_file
from tasks.stage import ExternalFile, FolderStage

if TYPE_CHECKING:
    from tasks.sources.snapshots import SnapshotRow

log = logging.getLogger("spamscore")

# As SQLAlchemy's `text` finds parameters.
_DATES_IN_QUERY = re.compile(r"(?<![:\w\\]):(start|end)(?![\w:])")


class ExtractMessages(FolderStage):
    """Takes the messages of one date from where [messages] says.

    Leaves ``messages.parquet``, as `tasks.sources.snapshots` describes it. The content of the source is
    deliberately not part
    of the fingerprint: a snapshot is taken once, so that a rerun reads what the first run read, although rows have come
    to the source since. To take another one, delete its folder.
    """

    date = YesterdayParameter(description="date whose messages are taken, as 2026-01-31; yesterday if not given")
    folder = SNAPSHOTS
    sections = (MessagesSettings,)
    # Of several dates all come before the first is scored, or each would load the model for itself.
    priority = 1

    def requires(self) -> list[ExternalFile]:
        """The file of the date, if it is one that somebody else provides."""
        settings = load(MessagesSettings)
        if settings.source != "file":
            return []
        return [ExternalFile(path=str(dated_path(settings, self.date)), setting="[messages] path")]

    def made_of(self) -> dict[str, Any]:
        """The settings, the path as it is set, and the date where it chooses the messages."""
        settings = load(MessagesSettings)
        date = self.date.isoformat() if is_dated(settings) else None
        return {**super().made_of(), "path": settings.path, "date": date}

    def output(self) -> FolderTarget:
        """The snapshot's folder, below one for the date."""
        return FolderTarget(snapshot_folder(self.date, self.fingerprint()))

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the source, writes the messages of the date, returns their counts."""
        from tasks.sources.files import estimate_row_count
        from tasks.sources.snapshots import SNAPSHOT_FILE, write_snapshot

        settings = located(load(MessagesSettings), self.date)
        others = OtherDates()
        rows = read_messages(settings, load(DatabaseSettings), self.date)
        with reporting(self, "extraction", ends_anywhere=True) as report:
            report.link(link_to(self.output().path / MANIFEST))
            seen = report.counted(rows, estimate_row_count(Path(settings.path)) if settings.source != "sql" else None)
            taken = of_date(seen, settings.date_column, self.date, others) if settings.date_column else seen
            counts = write_snapshot(snapshot_rows(taken, settings), folder / SNAPSHOT_FILE)
            report.conclude(f"{counts.rows:,} messages of {self.date} taken, {others.rows:,} of other dates left out")
        say_what_was_read(settings, self.date, counts.rows, counts.faults, others)
        return {
            "source": source_name(settings),
            "date": self.date.isoformat(),
            "sha256": file_sha256(folder / SNAPSHOT_FILE),
            **dataclasses.asdict(counts),
            **others.described(),
        }


def is_dated(settings: MessagesSettings) -> bool:
    """Whether another date means other messages: by the path, the date column, or the query."""
    if settings.source == "bundled":
        return False
    asked = "{date}" in settings.path if settings.source == "file" else _DATES_IN_QUERY.search(settings.query)
    return bool(settings.date_column or asked)


def dated_path(settings: MessagesSettings, date: datetime.date) -> Path:
    """The file of a date: {date} in the path stands for it."""
    return Path(settings.path.replace("{date}", date.isoformat()))


def located(settings: MessagesSettings, date: datetime.date) -> MessagesSettings:
    """The settings with path, layout and columns of the file that is to be read."""
    if settings.source == "bundled":
        return MessagesSettings(source="bundled", path=str(bundled_file("inbox.csv")), format="csv")
    return dataclasses.replace(settings, path=str(dated_path(settings, date)))


def source_name(settings: MessagesSettings) -> str:
    """The source as messages for a person name it."""
    return {"sql": "[messages] query", "bundled": "bundled inbox"}.get(settings.source, settings.path)


def read_messages(settings: MessagesSettings, database: DatabaseSettings, date: datetime.date) -> Iterator[SourceRow]:
    """Yields each row of the source; :start and :end of a query are the date and the day after.

    Args:
        settings: [messages], as `located` returns it.
        database: [database], for a query without an address of its own.
        date: the date.

    Raises:
        InputError: the source cannot be used.
        DatabaseError: it cannot be reached.
    """
    named = {key: getattr(settings, key) for key in ("text_column", "id_column", "date_column")}
    columns = {key: name for key, name in named.items() if name}
    if settings.source == "sql":
        from tasks.sources.queries import QuerySource, read_query

        night = {"start": date, "end": date + datetime.timedelta(days=1)}
        return read_query(QuerySource("messages", settings.query, columns, database, settings.url, night))
    from tasks.sources.file_source import FileSource
    from tasks.sources.files import read_file

    return read_file(FileSource("messages", Path(settings.path), columns, settings.format, settings.encoding))


@dataclass
class OtherDates:
    """The rows of other dates, which a snapshot leaves out: their number, the earliest date and the latest."""

    rows: int = 0
    first: datetime.date | None = None
    last: datetime.date | None = None

    def add(self, date: datetime.date) -> None:
        """Counts one."""
        self.rows += 1
        self.first = min(self.first or date, date)
        self.last = max(self.last or date, date)

    def described(self) -> dict[str, Any]:
        """The counts, for a manifest."""
        seen = [self.first, self.last] if self.first and self.last else []
        return {"other_dates": {"rows": self.rows, "seen": [one.isoformat() for one in seen]}}


def of_date(rows: Iterable[SourceRow], column: str, date: datetime.date, others: OtherDates) -> Iterator[SourceRow]:
    """Yields the rows of a date, and those whose date cannot be read, with that as their fault.

    Args:
        rows: the rows of the source.
        column: the column that holds date or time.
        date: the date.
        others: counts the rows left out.
    """
    for row in rows:
        found = read_date(row.values[column])
        if found is None:
            yield row._replace(fault=row.fault or f"unreadable date: {_shown(row.values[column])}")
        elif found == date:
            yield row
        else:
            others.add(found)


def read_date(text: str | None) -> datetime.date | None:
    """The date of a date or time in ISO 8601, its time zone taken at face value; None when it is none."""
    try:
        return datetime.datetime.fromisoformat((text or "").strip()).date()
    except ValueError:
        return None


def _shown(text: str | None) -> str:
    return f"received {text[:40]!r}, expected ISO 8601" if text else "there is none"


def snapshot_rows(rows: Iterable[SourceRow], settings: MessagesSettings) -> Iterator[SnapshotRow]:
    """Rows as a snapshot keeps them; without an id column a message is identified by its row."""
    from tasks.sources.snapshots import SnapshotRow

    for number, values, fault in rows:
        name = values[settings.id_column] if settings.id_column else str(number)
        yield SnapshotRow(number, name, values[settings.text_column], fault)


def say_what_was_read(
    settings: MessagesSettings, date: datetime.date, rows: int, faults: dict[str, int], others: OtherDates
) -> None:
    """Logs what was read in one line, and a warning when it is nothing."""
    seen = f"; {others.rows} of other dates, {others.first} to {others.last}, left out" if others.rows else ""
    faulty = f"; with a fault: {', '.join(f'{count} {kind}' for kind, count in faults.items())}" if faults else ""
    log.info("%s: %d messages of %s%s%s", source_name(settings), rows, date, faulty, seen)
    if not rows:
        log.warning("%s: no message of %s%s. The batch will be empty.", source_name(settings), date, seen)
