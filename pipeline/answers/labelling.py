"""Checks and stores the labels that a person gives, for `spamscore label`, and lists them, for `spamscore labels`.

Labels are read from the output of `spamscore uncertain` with the label filled in, or from any file with one message_id
and label per line.
"""

from __future__ import annotations

import csv
import datetime
import getpass
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import InputError
from pipeline.answers.explanations import require_texts
from tasks.database.tables import MESSAGE_ID_LENGTH
from tasks.sources.formats.delimited_records import MAX_RECORD_LENGTH
from tasks.sources.rows import to_plain_text

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow

NO_LABEL = "none"
LABEL_VALUES = ("spam", "ham", NO_LABEL)
_COLUMNS = ("message_id", "label")
_DELIMITERS = ",;\t"  # in many locales, spreadsheets write semicolons


@dataclass(frozen=True)
class LabelCounts:
    """How many messages were labelled, had their label removed, or were skipped because their label is empty."""

    spam: int
    ham: int
    removed: int
    skipped: int

    def __str__(self) -> str:
        parts = [f"{self.spam} labelled spam", f"{self.ham} labelled ham"]
        parts += [f"{self.removed} label{'s' * (self.removed != 1)} removed"] if self.removed else []
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        return ", ".join(parts)


def label_messages(
    engine: Engine, batch: BatchRow, message_labels: Sequence[tuple[str, str]], person: str
) -> LabelCounts:
    """Stores the labels that a person gives to messages of a batch: all of them, or none.

    Args:
        engine: a database with its tables.
        batch: the published batch.
        message_labels: pairs of message_id and one of `LABEL_VALUES`, or an empty label to skip the message; each
            message_id once.
        person: name of the person.

    Raises:
        InputError: the batch has no such message, or its snapshot is missing; nothing was changed.
    """
    from tasks.database.labels import MessageLabel, change_labels

    now = datetime.datetime.now(datetime.UTC)
    labelled_ids = [message_id for message_id, label in message_labels if label in ("spam", "ham")]
    invalid_ids = [
        message_id for message_id in labelled_ids if len(message_id) > MESSAGE_ID_LENGTH or "\0" in message_id
    ]
    if invalid_ids:
        raise InputError(
            f"message_id {invalid_ids[0][:40]!r}: expected up to {MESSAGE_ID_LENGTH} characters and no NUL. No scored "
            "message has this message_id"
        )
    texts = require_texts(batch, labelled_ids) if labelled_ids else {}
    changes = [
        (label, MessageLabel(batch.batch_date, message_id, person, label, now, texts.get(message_id, "")))
        for message_id, label in message_labels
        if label
    ]
    written = [row for label, row in changes if label != NO_LABEL]
    change_labels(engine, written, deleted=[row for label, row in changes if label == NO_LABEL])
    counts = {value: sum(label == value for _, label in message_labels) for value in (*LABEL_VALUES, "")}
    return LabelCounts(counts["spam"], counts["ham"], counts[NO_LABEL], counts[""])


def resolve_person(who: str | None) -> str:
    """Returns the given name of a person or, if it is None, the name of the system user.

    Raises:
        InputError: there is no name, or it is empty, too long or not printable.
    """
    try:
        name = getpass.getuser() if who is None else who
    except (KeyError, OSError):
        raise InputError("the system user has no name. Give your name: --who NAME") from None
    return check_person(name, "--who")


def check_person(name: str, source: str) -> str:
    """Returns the name of a person with single spaces.

    Args:
        name: the name as the person gave it.
        source: where the name is from, for the error.

    Raises:
        InputError: the name is empty, too long or not printable.
    """
    name = " ".join(name.split())
    if not name or len(name) > MESSAGE_ID_LENGTH or not name.isprintable():
        raise InputError(f"{source} {name[:40]!r}: expected a name of 1 to {MESSAGE_ID_LENGTH} printable characters")
    return name


def read_labels(content: bytes, name: str) -> list[tuple[str, str]]:
    """Parses a file of labels.

    The file is CSV or TSV with a header that has message_id and label, or JSON lines with both keys, or lines of
    ``message_id TAB label`` without a header. Other columns are ignored.

    Args:
        content: the file, UTF-8.
        name: name of the file in error messages.

    Returns:
        Pairs of message_id and label; an empty label means that the message is skipped.

    Raises:
        InputError: the file has another format, a label is unknown, or a message has two labels; names file and line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: expected UTF-8, received other bytes at byte {error.start + 1}. Save it as UTF-8."
        ) from None
    labels: dict[str, tuple[str, int]] = {}
    for line, message_id, value in _read_rows(text, name):
        label = value.strip().casefold()
        if label and label not in LABEL_VALUES:
            raise InputError(
                f"{name}, line {line}: label: expected one of {', '.join(LABEL_VALUES)}, received {value[:40]!r}"
            )
        first_label, first_line = labels.setdefault(message_id, (label, line))
        if first_label != label:
            raise InputError(
                f"{name}, line {line}: {message_id} is {label or 'not labelled'} here, but "
                f"{first_label or 'not labelled'} in line {first_line}. Delete one of the two lines."
            )
    return [(message_id, label) for message_id, (label, _) in labels.items()]


def _read_rows(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    """Returns line number, message_id and label of each message."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    if first.lstrip().startswith("{"):
        return _read_json_rows(text.split("\n"), name)
    delimiter = next((candidate for candidate in _DELIMITERS if set(_COLUMNS) <= _read_header(first, candidate)), None)
    if delimiter is None:
        return _read_plain_rows(text.split("\n"), name)
    return _read_table_rows(io.StringIO(text, newline=""), delimiter, name)


def _read_header(line: str, delimiter: str) -> set[str]:
    return {cell.strip() for row in csv.reader([line], delimiter=delimiter) for cell in row}


def _read_table_rows(lines: Iterable[str], delimiter: str, name: str) -> Iterator[tuple[int, str, str]]:
    csv.field_size_limit(MAX_RECORD_LENGTH)  # the file may contain whole messages
    reader = csv.reader(lines, delimiter=delimiter)
    rows = (row for row in reader if any(cell.strip() for cell in row))
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if not set(_COLUMNS) <= set(header):
            raise _malformed(name, 1, f"a header with {' and '.join(_COLUMNS)}")
        indices = [header.index(column) for column in _COLUMNS]
        for row in rows:
            if len(row) != len(header):
                raise InputError(f"{name}, line {reader.line_num}: expected {len(header)} fields, received {len(row)}")
            message_id, label = (row[index] for index in indices)
            yield reader.line_num, message_id, label
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: expected CSV: {error}") from None


def _read_json_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            message_id, label = (to_plain_text(content[column]) for column in _COLUMNS)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _malformed(name, number, "a JSON object with message_id and label") from None
        if message_id is None:
            raise _malformed(name, number, "a JSON object with message_id and label")
        yield number, message_id, label or ""


def _read_plain_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = line.removesuffix("\r").split("\t")
        if len(cells) < len(_COLUMNS):
            raise _malformed(name, number, "message_id TAB label, or CSV with both columns in its header")
        yield number, cells[0], cells[1]


def _malformed(name: str, line: int, expected: str) -> InputError:
    return InputError(f"{name}, line {line}: expected {expected}. Nothing was changed.")


LABEL_COLUMNS = ("batch_date", "message_id", "label", "labelled_by", "labelled_at", "disputed", "text")


def list_labels(
    engine: Engine, date: datetime.date | None, who: str | None, limit: int | None
) -> Sequence[tuple[object, ...]]:
    """Returns the labels as rows of `LABEL_COLUMNS`, latest first.

    Args:
        engine: the database.
        date: date of the messages; all if None.
        who: name of the person; all if None.
        limit: maximum number of labels; all if None.
    """
    from tasks.database.labels import find_disputed_messages, read_labels

    labels = read_labels(engine, date)
    disputed_messages = find_disputed_messages(labels)
    rows = [
        (label.batch_date, label.message_id, label.label, label.labelled_by, label.labelled_at,
         (label.batch_date, label.message_id) in disputed_messages, label.text)
        for label in labels if who in (None, label.labelled_by)
    ]  # fmt: skip
    return rows[:limit]
