"""IngestCorpus: the labelled messages, from wherever they are, into one Parquet file.

Every row of the source is kept, faulty ones with their fault, and after them what people said last of each message, if
[corpus] feedback says so; which of them are fit to learn from is decided by CleanText.
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
from tasks.scheduler.progress import reporting
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings
from tasks.settings.storage import DatabaseSettings
from tasks.sources.download import SMS_SPAM_COLLECTION_SHA256, fetch_sms_spam_collection
from tasks.sources.rows import SourceRow, fault_kind
from tasks.sources.samples import bundled_file
from tasks.stage import ExternalFile, FolderStage

log = logging.getLogger("spamscore")

CORPUS = "corpus.parquet"
MOST_LABELS = 100  # label values counted one by one; a label column named wrongly may hold millions


class IngestCorpus(FolderStage):
    """Takes the labelled messages from where [corpus] says.

    Leaves ``corpus.parquet`` (row_number int64, label, text and fault string, nullable, feedback bool), a row for each
    of the source and, by [corpus] feedback, for each message that people labelled.
    """

    folder = "corpus"
    code_version = 3
    sections = (CorpusSettings,)

    def requires(self) -> list[ExternalFile]:
        """The file, if it is one that somebody else provides."""
        settings = load(CorpusSettings)
        return [ExternalFile(path=settings.path, setting="[corpus] path")] if settings.source == "file" else []

    def made_of(self) -> dict[str, Any]:
        """The settings, the content of the file and the labels: another content is another corpus."""
        settings = load(CorpusSettings)
        labels = {"labels": labels_identity(self.labels)} if settings.feedback == "join" else {}
        return {**super().made_of(), "source": source_identity(settings), **labels}

    @functools.cached_property
    def labels(self) -> list[tuple[str, str]]:
        """What people said, as `resolve_labels` has it, as it was when this process first asked: a label given while
        a model trains on the ones before must not make that training void. The next run sees it.
        """
        from tasks.database.connection import connect
        from tasks.database.labels import read_labels, resolve_labels

        return resolve_labels(read_labels(connect(load(DatabaseSettings))))

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the source, writes the rows, returns their counts."""
        from tasks.sources.files import estimate_row_count

        settings = located(load(CorpusSettings))
        counts = CorpusCounts()
        feedback = self.labels if settings.feedback == "join" else []
        rows = counts.counted(read_corpus(settings, load(DatabaseSettings)))
        with reporting(self, "corpus", ends_anywhere=True) as report:
            report.link(link_to(self.output().path / MANIFEST))
            expected = estimate_row_count(Path(settings.path)) if settings.source != "sql" else None
            write_corpus(report.counted(with_feedback(rows, feedback), expected), folder / CORPUS)
            report.conclude(f"{counts}")
        counts.check(settings)
        log.info("corpus: %s%s", counts, f"; and {len(feedback)} messages that people labelled" if feedback else "")
        return {
            "source": settings.source,
            "source_sha256": file_sha256(Path(settings.path)) if settings.source != "sql" else None,
            "sha256": file_sha256(folder / CORPUS),
            "rows": counts.rows,
            "labels": dict(counts.labels),
            "faults": dict(counts.faults),
            "feedback": len(feedback),
        }


def source_identity(settings: CorpusSettings) -> str:
    """What tells one content of the source from another: a hash, or for a query nothing beside its settings."""
    if settings.source == "sms_spam_collection":
        return SMS_SPAM_COLLECTION_SHA256
    if settings.source == "sql":
        return ""
    path = bundled_file("corpus.csv") if settings.source == "bundled" else Path(settings.path)
    return file_sha256(path) if path.is_file() else "absent"


def located(settings: CorpusSettings) -> CorpusSettings:
    """The settings with path, layout and columns of the file that is to be read; downloads the Collection."""
    ours: dict[str, Any] = {"encoding": "utf-8", "label_column": "label", "text_column": "text"}
    if settings.source == "bundled":
        return dataclasses.replace(settings, path=str(bundled_file("corpus.csv")), format="csv", **ours)
    if settings.source == "sms_spam_collection":
        bar = load(ConsoleSettings).progress == "auto"
        folder = artifacts_folder() / "downloads"
        path = fetch_sms_spam_collection(settings.download_url, folder, settings.download_timeout, bar)
        return dataclasses.replace(settings, path=str(path), format="sms", **ours)
    return settings


def read_corpus(settings: CorpusSettings, database: DatabaseSettings) -> Iterator[tuple[Any, ...]]:
    """Yields (row number, label, text, fault) of each row of the source.

    Args:
        settings: [corpus], as `located` returns it.
        database: [database], for a query without an address of its own.

    Raises:
        InputError: the source cannot be used.
        DatabaseError: it cannot be reached.
    """
    columns = {"label_column": settings.label_column, "text_column": settings.text_column}
    for row in _source_rows(settings, columns, database):
        yield row.row_number, row.values[settings.label_column], row.values[settings.text_column], row.fault


def _source_rows(settings: CorpusSettings, columns: dict[str, str], database: DatabaseSettings) -> Iterator[SourceRow]:
    if settings.source == "sql":
        from tasks.sources.queries import QuerySource, read_query

        return read_query(QuerySource("corpus", settings.query, columns, database, settings.url))
    from tasks.sources.file_source import FileSource
    from tasks.sources.files import read_file

    return read_file(FileSource("corpus", Path(settings.path), columns, settings.format, settings.encoding))


def labels_identity(labels: Sequence[tuple[str, str]]) -> str:
    """What tells one set of labels from another: a hash of what the corpus takes of them."""
    return content_sha256([list(one) for one in labels])


def with_feedback(rows: Iterable[tuple[Any, ...]], labels: Iterable[tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of the source, then one for each label of people, numbered on.

    Args:
        rows: (row number, label, text, fault), numbered from 1 without a gap or in the source's own way.
        labels: what people said: (label, text).
    """
    last = 0
    for row in rows:
        last = max(last, row[0])
        yield *row, False
    for number, (label, text) in enumerate(labels, last + 1):
        yield number, label, text, None, True


def write_corpus(rows: Iterable[tuple[Any, ...]], path: Path) -> None:
    """Writes rows as `with_feedback` yields them to a Parquet file."""
    import pyarrow as pa

    from tasks.sources.snapshots import write_parquet_rows

    number = pa.field("row_number", pa.int64(), nullable=False)
    texts = [pa.field(name, pa.string()) for name in ("label", "text", "fault")]
    write_parquet_rows(rows, pa.schema([number, *texts, pa.field("feedback", pa.bool_(), nullable=False)]), path)


@dataclass
class CorpusCounts:
    """What a corpus consists of.

    Attributes:
        rows: all rows.
        labels: rows without a fault, by the value of their label; beyond `MOST_LABELS` values under "(others)".
        faults: rows with a fault, by its kind.
    """

    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def counted(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Passes rows on and counts them."""
        for row in rows:
            _, label, _, fault = row
            self.rows += 1
            if fault is None:
                self._count_label("(none)" if label is None else label)
            else:
                self.faults[fault_kind(fault)] += 1
            yield row

    def _count_label(self, label: str) -> None:
        known = label in self.labels or len(self.labels) < MOST_LABELS
        self.labels[label if known else "(others)"] += 1

    def check(self, settings: CorpusSettings) -> None:
        """Refuses a corpus without a row.

        Raises:
            InputError: naming the source.
        """
        if not self.rows:
            source = "[corpus] query" if settings.source == "sql" else f"[corpus] path = {settings.path}"
            raise InputError(
                f"{source}: expected labelled messages, received no row. Correct the source and run again."
            )

    def __str__(self) -> str:
        labels = ", ".join(f"{count} {label[:40]!r}" for label, count in self.labels.most_common(5))
        faults = "".join(f", {count} with fault {kind!r}" for kind, count in self.faults.most_common(5))
        return f"{self.rows} rows read: {labels}{faults}"
