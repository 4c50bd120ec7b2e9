"""The stage ExtractMessages: reads the messages of one date and writes them to a snapshot, once.

[messages] names the columns of the id, the text and the date. `tasks.sources.snapshots` defines the snapshot's format.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from tasks.artifacts.editions import select_edition, start_edition, with_edition
from tasks.artifacts.fingerprint import file_sha256
from tasks.artifacts.folders import MANIFEST, FolderTarget
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import SNAPSHOTS, snapshot_folder
from tasks.artifacts.source_files import describe_file, describe_origin, origin_to_json
from tasks.rejection_limit import exceeds_limit, make_rejected_error
from tasks.scheduler.calendar import describe_provisional, is_provisional, require_scorable
from tasks.scheduler.failures import record_note
from tasks.scheduler.parameters import YesterdayParameter
from tasks.scheduler.progress import report_progress
from tasks.settings.inputs import MessagesSettings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings
from tasks.sources.dates import OtherDates, select_date
from tasks.sources.paths import ExternalFile, FileRows, expand_path, is_dated_path
from tasks.sources.rows import SourceRow
from tasks.sources.samples import bundled_file
from tasks.stage import FolderStage
from tasks.storage.stored_objects import locate

if TYPE_CHECKING:
    from tasks.sources.snapshots import SnapshotRow

log = logging.getLogger("spamscore")

# Matches parameters as SQLAlchemy's `text` does.
_DATE_PARAMETERS = re.compile(r"(?<![:\w\\]):(start|end)(?![\w:])")


class ExtractMessages(FolderStage):
    """Reads the messages of one date from the source in [messages].

    Writes ``messages.parquet`` and, if identifiers repeat, ``repeated_ids.parquet``, as `tasks.sources.snapshots`
    describes them. The content of the source is deliberately not part of the fingerprint: a snapshot is taken once, so
    that a rerun reads what the first run read even if the source has new rows. To take a new one: ``spamscore extract
    DATE --again``.
    """

    date = YesterdayParameter(description="date of the messages, such as 2026-01-31; yesterday by default")
    folder = SNAPSHOTS
    sections = (MessagesSettings,)
    code_version = 2
    # The snapshots of all dates come before the first score; otherwise each date would load the model itself.
    priority = 1

    def requires(self) -> list[ExternalFile]:
        """Returns the file of the date if [messages] source = file."""
        settings = load(MessagesSettings)
        if settings.source != "file":
            return []
        return [ExternalFile(path=expand_path(settings.path, self.date), setting="[messages] path")]

    def deps(self) -> list[luigi.Task]:
        """Returns the requirements to Luigi, unless the date is not over. `requires` is also part of the fingerprint.

        Raises:
            DateNotOverError: the date is not over, and [messages] provisional is not set.
        """
        require_scorable(self.date)
        return list(super().deps())

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds the path as it is set, the date if it selects the messages, whether they are provisional, the edition.

        The edition is added from the second one on.
        """
        return with_edition(self.date, self._first_edition())

    def _first_edition(self) -> dict[str, Any]:
        settings = load(MessagesSettings)
        date = self.date.isoformat() if is_dated(settings) else None
        provisional = {"provisional": True} if is_provisional(self.date) else {}
        return {**super().fingerprint_parts(), "path": settings.path, "date": date, **provisional}

    def take_again(self) -> None:
        """Makes the next run of the date read the source anew. Snapshots and batches that exist are kept."""
        start_edition(self.date, self._first_edition())

    def keep_snapshot(self, name: str) -> None:
        """Makes the next run of the date use the snapshot with this name, if it was taken with the same settings."""
        select_edition(self.date, self._first_edition(), name)

    def describe_completion(self) -> str:
        """Returns a sentence about the snapshot and how to take a new one, for the last lines of a run."""
        origin = describe_origin(self.output().path)
        return (
            f"{describe_provisional([self.date])}The messages were {origin}. "
            f"To read them again: spamscore extract {self.date} --again"
        )

    def output(self) -> FolderTarget:
        """Returns the snapshot's folder, in a folder for the date."""
        return FolderTarget(snapshot_folder(self.date, self.fingerprint()))

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the source, writes the messages of the date, and returns their counts."""
        from tasks.sources.files import estimate_total_row_count
        from tasks.sources.replacements import ReplacedRows
        from tasks.sources.snapshots import SNAPSHOT_FILE, write_snapshot

        settings = resolve_source(load(MessagesSettings), self.date)
        other_dates, replaced, file_rows = OtherDates(), ReplacedRows(), FileRows()
        taken_at = datetime.datetime.now(datetime.UTC)
        rows = read_messages(settings, load(DatabaseSettings), self.date, file_rows)
        files = [describe_file(path) for path in file_rows.files] if settings.source == "file" else []
        with report_progress(self, "extraction", interruptible=True) as progress:
            progress.link(link_to(self.output().path / MANIFEST))
            path = locate(settings.path, "[messages] path")
            counted = progress.count_rows(rows, estimate_total_row_count(path) if settings.source != "sql" else None)
            if settings.date_column:
                counted = select_date(counted, settings, self.date, other_dates)
            named = file_rows.name_files(replaced.count(counted))
            counts = write_snapshot(to_snapshot_rows(named, settings), folder / SNAPSHOT_FILE)
            progress.conclude(f"{counts.rows:,} messages of {self.date}, {other_dates.rows:,} of other dates left out")
        faults = {fault.name: fault.rows for fault in counts.faults}
        log_counts(settings, self.date, counts.rows, faults, other_dates)
        replaced.check("messages", settings)  # first: a wrong encoding may be the cause of rejected rows too
        limit = load(MessagesSettings).max_rejected_share
        if exceeds_limit(counts.faults, counts.rows, limit):
            raise make_rejected_error(describe_source(settings), self.date, counts.rows, counts.faults, limit)
        return {
            "source": describe_source(settings),
            "date": self.date.isoformat(),
            "sha256": file_sha256(folder / SNAPSHOT_FILE),
            "rows": counts.rows,
            "faults": faults,
            "replaced": replaced.replaced,
            **other_dates.to_dict(),
            **origin_to_json(files, taken_at),
        }


def is_dated(settings: MessagesSettings) -> bool:
    """Returns whether the date selects the messages: through the path, the date column, or the query."""
    if settings.source == "bundled":
        return False
    if settings.source == "file":
        return bool(settings.date_column) or is_dated_path(settings.path)
    return bool(settings.date_column or _DATE_PARAMETERS.search(settings.query))


def resolve_source(settings: MessagesSettings, date: datetime.date) -> MessagesSettings:
    """Returns the settings with path, format and columns of the file to read."""
    if settings.source == "bundled":
        return MessagesSettings(source="bundled", path=str(bundled_file("inbox.csv")), format="csv")
    return dataclasses.replace(settings, path=expand_path(settings.path, date))


def describe_source(settings: MessagesSettings) -> str:
    """Returns the name of the source for log lines and the manifest."""
    return {"sql": "[messages] query", "bundled": "bundled inbox"}.get(settings.source, settings.path)


def read_messages(
    settings: MessagesSettings, database: DatabaseSettings, date: datetime.date, file_rows: FileRows
) -> Iterator[SourceRow]:
    """Yields each row of the source. :start and :end of a query are bound to the date and the next day.

    Args:
        settings: [messages], as `resolve_source` returns it.
        database: [database], for a query without its own URL.
        date: the date.
        file_rows: records which file each row comes from.

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
    from tasks.sources.files import read_files

    dialect = Dialect(settings.delimiter, settings.quote, settings.escape, settings.null)
    path = locate(settings.path, "[messages] path")
    source = FileSource("messages", path, columns, settings.format, settings.encoding, dialect)
    return read_files(source, file_rows)


def to_snapshot_rows(rows: Iterable[SourceRow], settings: MessagesSettings) -> Iterator[SnapshotRow]:
    """Converts source rows to snapshot rows. Without an id column the row number identifies a message."""
    from tasks.sources.snapshots import SnapshotRow

    for number, values, fault in rows:
        message_id = values[settings.id_column] if settings.id_column else str(number)
        yield SnapshotRow(number, message_id, values[settings.text_column], fault)


def log_counts(
    settings: MessagesSettings, date: datetime.date, rows: int, faults: dict[str, int], other_dates: OtherDates
) -> None:
    """Logs the number of rows in one line. If there are none, warns of it, also on the last lines of the run."""
    source, left_out, faulty = describe_source(settings), "", ""
    if other_dates.rows:
        left_out = f"; {other_dates.rows} of other dates, {other_dates.first} to {other_dates.last}, left out"
    if faults:
        faulty = f"; with a fault: {', '.join(f'{count} {kind}' for kind, count in faults.items())}"
    log.info("%s: %d messages of %s%s%s", source, rows, date, faulty, left_out)
    if not rows:
        warning = f"{source}: no message of {date}{left_out}. The batch will be empty."
        log.warning("%s", warning)
        record_note(f"{warning} After a correction of the source: spamscore extract {date} --again")
