"""The stage IngestCorpus: reads the labelled messages from their source and writes them to one Parquet file.

Every row of the source is kept, faulty rows with their fault. With [corpus] feedback = join, the latest label that
people gave to each message follows. CleanText decides which rows are used.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import InputError
from tasks.artifacts.fingerprint import content_sha256, file_sha256
from tasks.artifacts.folders import MANIFEST
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import artifacts_folder
from tasks.scheduler.progress import report_progress
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings
from tasks.settings.storage import DatabaseSettings
from tasks.sources.download import SMS_SPAM_COLLECTION_SHA256, fetch_sms_spam_collection
from tasks.sources.paths import ExternalFile, FileRows, expand_path, hash_files
from tasks.sources.rows import SourceRow, fault_kind
from tasks.sources.samples import bundled_file
from tasks.stage import FolderStage
from tasks.storage.stored_objects import SourcePath, locate

log = logging.getLogger("spamscore")

CORPUS = "corpus.parquet"
MAX_LABEL_VALUES = 100  # label values that are counted separately; a wrong label column may have millions


class IngestCorpus(FolderStage):
    """Reads the labelled messages from the source in [corpus].

    Writes ``corpus.parquet`` (row_number int64; label, text and fault string, nullable; feedback bool): a row for each
    row of the source and, with [corpus] feedback = join, for each message that people labelled.
    """

    folder = "corpus"
    code_version = 3
    sections = (CorpusSettings,)

    def requires(self) -> list[ExternalFile]:
        """Returns the file of labelled messages if [corpus] source = file."""
        settings = load(CorpusSettings)
        if settings.source != "file":
            return []
        return [ExternalFile(path=expand_path(settings.path), setting="[corpus] path")]

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds the content of the file and people's labels: other content is another corpus."""
        settings = load(CorpusSettings)
        labels = {"labels": hash_labels(self.labels)} if settings.feedback == "join" else {}
        return {**super().fingerprint_parts(), "source": hash_source(settings), **labels}

    @functools.cached_property
    def labels(self) -> list[tuple[str, str]]:
        """People's labels (label, text), read once per process.

        A label that is given while a model trains on the earlier ones must not invalidate that training. The next run
        reads it.
        """
        from tasks.database.connection import connect
        from tasks.database.labels import read_labels, resolve_labels

        return resolve_labels(read_labels(connect(load(DatabaseSettings))))

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the source, writes the rows, and returns their counts."""
        from tasks.sources.files import estimate_total_row_count
        from tasks.sources.replacements import ReplacedRows

        settings = resolve_source(load(CorpusSettings))
        counts, replaced = CorpusCounts(), ReplacedRows()
        feedback = self.labels if settings.feedback == "join" else []
        source_rows = replaced.count(read_source(settings, load(DatabaseSettings)))
        rows = counts.count(select_columns(source_rows, settings))
        with report_progress(self, "corpus", interruptible=True) as progress:
            progress.link(link_to(self.output().path / MANIFEST))
            expected = estimate_total_row_count(_locate(settings.path)) if settings.source != "sql" else None
            write_corpus(progress.count_rows(append_feedback(rows, feedback), expected), folder / CORPUS)
            progress.conclude(f"{counts}")
        counts.check(settings)
        replaced.check("corpus", settings)
        log.info("corpus: %s%s", counts, f"; and {len(feedback)} messages that people labelled" if feedback else "")
        return {
            "source": settings.source,
            "source_sha256": hash_files(_locate(settings.path)) if settings.source != "sql" else None,
            "sha256": file_sha256(folder / CORPUS),
            "rows": counts.rows,
            "labels": dict(counts.labels),
            "faults": dict(counts.faults),
            "replaced": replaced.replaced,
            "feedback": len(feedback),
        }


def hash_source(settings: CorpusSettings) -> str:
    """Returns the SHA-256 of the source's content; an empty string for a query, ``absent`` if there is no file."""
    if settings.source == "sms_spam_collection":
        return SMS_SPAM_COLLECTION_SHA256
    if settings.source == "sql":
        return ""
    if settings.source == "bundled":
        return hash_files(bundled_file("corpus.csv"))
    return hash_files(_locate(expand_path(settings.path)))


def resolve_source(settings: CorpusSettings) -> CorpusSettings:
    """Returns the settings with path, format and columns of the file to read. Downloads the Collection if needed."""
    columns: dict[str, Any] = {
        "encoding": "utf-8", "label_column": "label", "text_column": "text",
        "delimiter": "auto", "quote": "auto", "escape": "none", "null": "",
    }  # fmt: skip
    if settings.source == "bundled":
        return dataclasses.replace(settings, path=str(bundled_file("corpus.csv")), format="csv", **columns)
    if settings.source == "sms_spam_collection":
        bar = load(ConsoleSettings).progress == "auto"
        folder = artifacts_folder() / "downloads"
        path = fetch_sms_spam_collection(settings.download_url, folder, settings.download_timeout, bar)
        return dataclasses.replace(settings, path=str(path), format="sms", **columns)
    return dataclasses.replace(settings, path=expand_path(settings.path))


def _locate(path: str) -> SourcePath:
    return locate(path, "[corpus] path")


def describe_source(settings: CorpusSettings) -> str:
    """Returns the setting that names the source, and its value, for messages."""
    if settings.source == "sql":
        return "[corpus] query"
    return f"[corpus] path = {settings.path}" if settings.path else f"[corpus] source = {settings.source}"


def read_source(settings: CorpusSettings, database: DatabaseSettings) -> Iterator[SourceRow]:
    """Yields each row of the source.

    Args:
        settings: [corpus], as `resolve_source` returns it.
        database: [database], for a query without its own URL.

    Raises:
        InputError: the source is not valid.
        DatabaseError: the database cannot be reached.
    """
    columns = {"label_column": settings.label_column, "text_column": settings.text_column}
    if settings.source == "sql":
        from tasks.sources.queries import QuerySource, read_query

        return read_query(QuerySource("corpus", settings.query, columns, database, settings.url))
    from tasks.sources.file_source import Dialect, FileSource
    from tasks.sources.files import read_files

    dialect = Dialect(settings.delimiter, settings.quote, settings.escape, settings.null)
    source = FileSource("corpus", _locate(settings.path), columns, settings.format, settings.encoding, dialect)
    file_rows = FileRows()
    return file_rows.name_files(read_files(source, file_rows))


def select_columns(rows: Iterable[SourceRow], settings: CorpusSettings) -> Iterator[tuple[Any, ...]]:
    """Yields (row number, label, text, fault) for each row of the source."""
    for row in rows:
        yield row.row_number, row.values[settings.label_column], row.values[settings.text_column], row.fault


def hash_labels(labels: Sequence[tuple[str, str]]) -> str:
    """Returns the SHA-256 of people's labels and texts."""
    return content_sha256([list(label) for label in labels])


def append_feedback(rows: Iterable[tuple[Any, ...]], labels: Iterable[tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of the source, then a row for each of people's labels, numbered from the highest number on.

    Args:
        rows: (row number, label, text, fault), numbered from 1 without a gap or as in the source.
        labels: people's labels: (label, text).
    """
    last = 0
    for row in rows:
        last = max(last, row[0])
        yield *row, False
    for number, (label, text) in enumerate(labels, last + 1):
        yield number, label, text, None, True


def write_corpus(rows: Iterable[tuple[Any, ...]], path: Path) -> None:
    """Writes the rows that `append_feedback` yields to a Parquet file."""
    import pyarrow as pa

    from tasks.sources.snapshots import write_parquet_rows

    number = pa.field("row_number", pa.int64(), nullable=False)
    texts = [pa.field(name, pa.string()) for name in ("label", "text", "fault")]
    write_parquet_rows(rows, pa.schema([number, *texts, pa.field("feedback", pa.bool_(), nullable=False)]), path)


@dataclass
class CorpusCounts:
    """Counts the rows of a corpus.

    Attributes:
        rows: all rows.
        labels: rows without a fault, by the value of their label; beyond `MAX_LABEL_VALUES` values under "(others)".
        faults: rows with a fault, by kind of fault.
    """

    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def count(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Yields the rows and counts them."""
        for row in rows:
            _, label, _, fault = row
            self.rows += 1
            if fault is None:
                self._count_label("(none)" if label is None else label)
            else:
                self.faults[fault_kind(fault)] += 1
            yield row

    def _count_label(self, label: str) -> None:
        is_separate = label in self.labels or len(self.labels) < MAX_LABEL_VALUES
        self.labels[label if is_separate else "(others)"] += 1

    def check(self, settings: CorpusSettings) -> None:
        """Checks that the corpus has at least one row.

        Raises:
            InputError: it has none; names the source.
        """
        if not self.rows:
            raise InputError(
                f"{describe_source(settings)}: expected labelled messages, received no row. "
                "Correct the source and run again."
            )

    def __str__(self) -> str:
        labels = ", ".join(f"{count} {label[:40]!r}" for label, count in self.labels.most_common(5))
        faults = "".join(f", {count} with fault {kind!r}" for kind, count in self.faults.most_common(5))
        return f"{self.rows} rows read: {labels}{faults}"
