"""The labels that a person hands in, held to what there is: which messages, spam or ham, by whom.

What is read is what `spamscore uncertain` wrote, filled in; or anything with a message and a label a line.
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
from tasks.sources.delimited import MAX_RECORD_LENGTH
from tasks.sources.rows import to_plain_text

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow

TAKEN_BACK = "none"
WORDS = ("spam", "ham", TAKEN_BACK)
_COLUMNS = ("message_id", "label")
_DELIMITERS = ",;\t"  # spreadsheets of half the world write semicolons


@dataclass(frozen=True)
class Labelled:
    """How many messages a person labelled, took a label back of, or left open."""

    spam: int
    ham: int
    taken_back: int
    left_open: int

    def __str__(self) -> str:
        parts = [f"{self.spam} labelled spam", f"{self.ham} labelled ham"]
        parts += [f"{self.taken_back} taken back"] if self.taken_back else []
        parts += [f"{self.left_open} left open"] if self.left_open else []
        return ", ".join(parts)


def label_messages(engine: Engine, batch: BatchRow, given: Sequence[tuple[str, str]], who: str) -> Labelled:
    """Writes what a person says of messages of a batch, all of it or nothing.

    Args:
        engine: a database with its tables.
        batch: the published batch.
        given: message_id and one of `WORDS`, or an empty text for a message left open; each identifier once.
        who: the person.

    Raises:
        InputError: the batch has no such message, or its texts are gone; nothing was changed.
    """
    from tasks.database.labels import MessageLabel, change_labels

    now = datetime.datetime.now(datetime.UTC)
    wanted = [key for key, label in given if label in ("spam", "ham")]
    if unusable := [key for key in wanted if len(key) > MESSAGE_ID_LENGTH or "\0" in key]:
        raise InputError(
            f"{unusable[0][:40]!r}: no score has such an identifier: expected up to {MESSAGE_ID_LENGTH} characters, "
            "and no NUL"
        )
    texts = require_texts(batch, wanted) if wanted else {}
    made = [
        (label, MessageLabel(batch.batch_date, key, who, label, now, texts.get(key, "")))
        for key, label in given
        if label
    ]
    written = [one for label, one in made if label != TAKEN_BACK]
    change_labels(engine, written, deleted=[one for label, one in made if label == TAKEN_BACK])
    counts = {word: sum(label == word for _, label in given) for word in (*WORDS, "")}
    return Labelled(counts["spam"], counts["ham"], counts[TAKEN_BACK], counts[""])


def chosen_person(who: str | None) -> str:
    """Who labels: the name given, or that of the system's user.

    Raises:
        InputError: there is none, or it is no name.
    """
    try:
        name = getpass.getuser() if who is None else who
    except (KeyError, OSError):
        raise InputError("the system has no name for its user. Say who labels: --who NAME") from None
    name = " ".join(name.split())
    if not name or len(name) > MESSAGE_ID_LENGTH or not name.isprintable():
        raise InputError(f"--who {name[:40]!r}: expected a name of 1 to {MESSAGE_ID_LENGTH} visible characters")
    return name


def read_labels(content: bytes, name: str) -> list[tuple[str, str]]:
    """Identifier and label of each message in a file: CSV or TSV with a head that has both, JSON lines with both, or
    lines of ``message_id TAB label`` without a head. Further columns do not count; an empty label is one left open.

    Args:
        content: the file, UTF-8.
        name: what errors call it.

    Raises:
        InputError: it is none of these, a label is none, or a message has two; names file and line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: expected UTF-8, received other bytes at byte {error.start + 1}. Save it as UTF-8."
        ) from None
    found: dict[str, tuple[str, int]] = {}
    for line, message_id, said in _rows(text, name):
        label = said.strip().casefold()
        if label and label not in WORDS:
            raise InputError(f"{name}, line {line}: label: expected one of {', '.join(WORDS)}, received {said[:40]!r}")
        before, where = found.setdefault(message_id, (label, line))
        if before != label:
            raise InputError(
                f"{name}, line {line}: {message_id} is {label or 'left open'} here and {before or 'left open'} in line "
                f"{where}. Leave one of the two."
            )
    return [(key, label) for key, (label, _) in found.items()]


def _rows(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    """Line, identifier and label of each message."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    if first.lstrip().startswith("{"):
        return _json_rows(text.split("\n"), name)
    delimiter = next((one for one in _DELIMITERS if set(_COLUMNS) <= _head(first, one)), None)
    if delimiter is None:
        return _plain_rows(text.split("\n"), name)
    return _table_rows(io.StringIO(text, newline=""), delimiter, name)


def _head(line: str, delimiter: str) -> set[str]:
    return {cell.strip() for row in csv.reader([line], delimiter=delimiter) for cell in row}


def _table_rows(lines: Iterable[str], delimiter: str, name: str) -> Iterator[tuple[int, str, str]]:
    csv.field_size_limit(MAX_RECORD_LENGTH)  # a file has the whole texts of messages
    reader = csv.reader(lines, delimiter=delimiter)
    rows = (row for row in reader if any(cell.strip() for cell in row))
    try:
        names = [cell.strip() for cell in next(rows, [])]
        if not set(_COLUMNS) <= set(names):
            raise _malformed(name, 1, f"a head with {' and '.join(_COLUMNS)}")
        places = [names.index(column) for column in _COLUMNS]
        for row in rows:
            if len(row) != len(names):
                raise InputError(f"{name}, line {reader.line_num}: expected {len(names)} fields, received {len(row)}")
            message_id, label = (row[place] for place in places)
            yield reader.line_num, message_id, label
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: expected CSV, but {error}") from None


def _json_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, str, str]]:
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


def _plain_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = line.removesuffix("\r").split("\t")
        if len(cells) < len(_COLUMNS):
            raise _malformed(name, number, "message_id TAB label, or CSV with these two in its head")
        yield number, cells[0], cells[1]


def _malformed(name: str, line: int, expected: str) -> InputError:
    return InputError(f"{name}, line {line}: expected {expected}. Nothing was changed.")


LISTED = ("batch_date", "message_id", "label", "labelled_by", "labelled_at", "disputed", "text")


def listed_labels(
    engine: Engine, date: datetime.date | None, who: str | None, limit: int | None
) -> Sequence[tuple[object, ...]]:
    """The labels there are as rows of `LISTED`, the latest first.

    Args:
        engine: the database.
        date: of the messages; all if not given.
        who: the person; all if not given.
        limit: most labels wanted.
    """
    from tasks.database.labels import find_disputed_messages, read_labels

    found = read_labels(engine, date)
    torn = find_disputed_messages(found)
    rows = [
        (one.batch_date, one.message_id, one.label, one.labelled_by, one.labelled_at,
         (one.batch_date, one.message_id) in torn, one.text)
        for one in found if who in (None, one.labelled_by)
    ]  # fmt: skip
    return rows[:limit]
