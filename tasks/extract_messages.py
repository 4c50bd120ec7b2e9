"""The stage ExtractMessages: reads the messages of one date and writes them to a snapshot, once.

[messages] names the columns of the id, the text and the date. `tasks.sources.snapshots` defines the snapshot's format.
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
from tasks.scheduler.progress import report_progress
from tasks.settings.inputs import MessagesSettings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings
from tasks.sources.rows import SourceRow
from tasks.sources.samples import bundled_file
from tasks.stage import ExternalFile, FolderStage

if TYPE_CHECKING:
    from tasks.sources.snapshots import SnapshotRow

log = logging.getLogger("spamscore")

# Matches parameters as SQLAlchemy's `text` does.
_DATE_PARAMETERS = re.compile(r"(?<![:\w\\]):(start|end)(?![\w:])")


class ExtractMessages(FolderStage):
    """Reads the messages of one date from the source in [messages].

    Writes ``messages.parquet``, as `tasks.sources.snapshots` describes it. The content of the source is deliberately
    not part of the fingerprint: a snapshot is taken once, so that a rerun reads what the first run read even if the
    source has new rows. To take a new snapshot, delete its folder.
    """

    date = YesterdayParameter(description="date of the messages, such as 2026-01-31; yesterday by default")
    folder = SNAPSHOTS
    sections = (MessagesSettings,)
    # The snapshots of all dates come before the first score; otherwise each date would load the model itself.
    priority = 1

    def requires(self) -> list[ExternalFile]:
        """Returns the file of the date if [messages] source = file."""
        settings = load(MessagesSettings)
        if settings.source != "file":
            return []
        return [ExternalFile(path=str(dated_path(settings, self.date)), setting="[messages] path")]

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds the path as it is set, and the date if it selects the messages."""
        settings = load(MessagesSettings)
        date = self.date.isoformat() if is_dated(settings) else None
        return {**super().fingerprint_parts(), "path": settings.path, "date": date}

    def output(self) -> FolderTarget:
        """Returns the snapshot's folder, in a folder for the date."""
        return FolderTarget(snapshot_folder(self.date, self.fingerprint()))

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the source, writes the messages of the date, and returns their counts."""
        from tasks.sources.files import estimate_row_count
        from tasks.sources.replacements import ReplacedRows
        from tasks.sources.snapshots import SNAPSHOT_FILE, write_snapshot

        settings = resolve_source(load(MessagesSettings), self.date)
        other_dates, replaced = OtherDates(), ReplacedRows()
        rows = read_messages(settings, load(DatabaseSettings), self.date)
        with report_progress(self, "extraction", interruptible=True) as progress:
            progress.link(link_to(self.output().path / MANIFEST))
            counted = progress.count_rows(
                rows, estimate_row_count(Path(settings.path)) if settings.source != "sql" else None
            )
            if settings.date_column:
                counted = select_date(counted, settings.date_column, self.date, other_dates)
            counts = write_snapshot(to_snapshot_rows(replaced.count(counted), settings), folder / SNAPSHOT_FILE)
            progress.conclude(f"{counts.rows:,} messages of {self.date}, {other_dates.rows:,} of other dates left out")
        log_counts(settings, self.date, counts.rows, counts.faults, other_dates)
        replaced.check("messages", settings)
        return {
            "source": describe_source(settings),
            "date": self.date.isoformat(),
            "sha256": file_sha256(folder / SNAPSHOT_FILE),
            **dataclasses.asdict(counts),
            "replaced": replaced.replaced,
            **other_dates.to_dict(),
        }


def is_dated(settings: MessagesSettings) -> bool:
    """Returns whether the date selects the messages: through the path, the date column, or the query."""
    if settings.source == "bundled":
        return False
    if settings.source == "file":
        return bool(settings.date_column or "{date}" in settings.path)
    return bool(settings.date_column or _DATE_PARAMETERS.search(settings.query))


def dated_path(settings: MessagesSettings, date: datetime.date) -> Path:
    """Returns the file of a date: {date} in the path is replaced by the date."""
    return Path(settings.path.replace("{date}", date.isoformat()))


def resolve_source(settings: MessagesSettings, date: datetime.date) -> MessagesSettings:
    """Returns the settings with path, format and columns of the file to read."""
    if settings.source == "bundled":
        return MessagesSettings(source="bundled", path=str(bundled_file("inbox.csv")), format="csv")
    return dataclasses.replace(settings, path=str(dated_path(settings, date)))


def describe_source(settings: MessagesSettings) -> str:
    """Returns the name of the source for log lines and the manifest."""
    return {"sql": "[messages] query", "bundled": "bundled inbox"}.get(settings.source, settings.path)


def read_messages(settings: MessagesSettings, database: DatabaseSettings, date: datetime.date) -> Iterator[SourceRow]:
    """Yields each row of the source. :start and :end of a query are bound to the date and the next day.

    Args:
        settings: [messages], as `resolve_source` returns it.
        database: [database], for a query without its own URL.
        date: the date.

    Raises:
        InputError: the source is not valid.
        DatabaseError: the database cannot be reached.
    """
    keys = ("text_column", "id_column", "date_column")
    columns = {key: name for key in keys if (name := getattr(settings, key))}
    if settings.source == "sql":
        from tasks.sources.queries import QuerySource, read_query

        parameters = {"start": date, "end": date + datetime.timedelta(days=1)}
        return read_query(QuerySource("messages", settings.query, columns, database, settings.url, parameters))
    from tasks.sources.file_source import Dialect, FileSource
    from tasks.sources.files import read_file

    dialect = Dialect(settings.delimiter, settings.quote, settings.escape, settings.null)
    return read_file(FileSource("messages", Path(settings.path), columns, settings.format, settings.encoding, dialect))


@dataclass
class OtherDates:
    """Counts the rows of other dates, which a snapshot leaves out, and their earliest and latest date."""

    rows: int = 0
    first: datetime.date | None = None
    last: datetime.date | None = None

    def add(self, date: datetime.date) -> None:
        """Counts a row of this date."""
        self.rows += 1
        self.first = min(self.first or date, date)
        self.last = max(self.last or date, date)

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts for the manifest."""
        dates = [self.first, self.last] if self.first and self.last else []
        return {"other_dates": {"rows": self.rows, "seen": [date.isoformat() for date in dates]}}


def select_date(
    rows: Iterable[SourceRow], column: str, date: datetime.date, other_dates: OtherDates
) -> Iterator[SourceRow]:
    """Yields the rows of a date. Rows with an unreadable date are yielded too, with that as their fault.

    Args:
        rows: the rows of the source.
        column: the column that contains the date or time.
        date: the date.
        other_dates: counts the rows that are left out.
    """
    for row in rows:
        row_date = parse_date(row.values[column])
        if row_date is None:
            yield row._replace(fault=row.fault or f"unreadable date: {_describe_date(row.values[column])}")
        elif row_date == date:
            yield row
        else:
            other_dates.add(row_date)


def parse_date(text: str | None) -> datetime.date | None:
    """Returns the date of an ISO 8601 date or time, without converting its time zone; None if the text is neither."""
    try:
        return datetime.datetime.fromisoformat((text or "").strip()).date()
    except ValueError:
        return None


def _describe_date(text: str | None) -> str:
    return f"received {text[:40]!r}, expected ISO 8601" if text else "there is none"


def to_snapshot_rows(rows: Iterable[SourceRow], settings: MessagesSettings) -> Iterator[SnapshotRow]:
    """Converts source rows to snapshot rows. Without an id column the row number identifies a message."""
    from tasks.sources.snapshots import SnapshotRow

    for number, values, fault in rows:
        message_id = values[settings.id_column] if settings.id_column else str(number)
        yield SnapshotRow(number, message_id, values[settings.text_column], fault)


def log_counts(
    settings: MessagesSettings, date: datetime.date, rows: int, faults: dict[str, int], other_dates: OtherDates
) -> None:
    """Logs the number of rows in one line, and a warning if there are none."""
    source, left_out, faulty = describe_source(settings), "", ""
    if other_dates.rows:
        left_out = f"; {other_dates.rows} of other dates, {other_dates.first} to {other_dates.last}, left out"
    if faults:
        faulty = f"; with a fault: {', '.join(f'{count} {kind}' for kind, count in faults.items())}"
    log.info("%s: %d messages of %s%s%s", source, rows, date, faulty, left_out)
    if not rows:
        log.warning("%s: no message of %s%s. The batch will be empty.", source, date, left_out)
