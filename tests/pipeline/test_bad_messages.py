"""Bad messages in a real run: each is scored, or is a row of `rejected_messages` with a reason.

A bad message never stops the batch. The content of a message is never interpreted as anything but text.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from chain import DATE, LUIGI, SMALL, Settings, environment, luigi, merge_settings, query, write_settings
from sqlalchemy import exc

from tasks.database.connection import read_transaction, write_transaction
from tasks.database.schema import open_database
from tasks.database.tables import batch_chunks, rejected_messages, score_batches, spam_scores
from tasks.settings.storage import DatabaseSettings
from tasks.sources.snapshots import SNAPSHOT_FILE

SPAMSCORE = LUIGI.with_name("spamscore")
CHUNK = 30


@dataclass(frozen=True)
class Message:
    """A message of the inbox and its expected result.

    Attributes:
        message_id: its identifier; bytes are written unchanged, numbers and booleans as such if the format has types.
        text: the message; likewise.
        reason: why it is rejected, or None if it is scored.
        detail: the start of the detail of a rejected message.
        stored: its identifier in the database, if it differs from `message_id`.
    """

    message_id: Any
    text: Any
    reason: str | None = None
    detail: str | None = None
    stored: str | None = None

    @property
    def stored_id(self) -> str | None:
        return self.message_id if self.stored is None else self.stored


HOSTILE = [
    "=cmd|' /C calc'!A0", "@SUM(1)", "+1+1", "-2+3", "'; DROP TABLE spam_scores; --", "\" OR 1=1 --",
    "100%s %(a)s :start", "<script>alert(1)</script>", "&amp;lt;&#0;&#xD800;&#99999999999;", "{{7*7}} ${HOME} `id`",
    "[bold red]x[/bold red]", "\x1b[2J\x1b]0;mine\x07", "\x9b31m", "a\\tb\\", "NULL", "NaN", "None", "true",
    "\u202e\u2066evil\u2069", "\u200b\u200d\ufeff", "👨‍👩‍👧‍👦🏳️‍🌈👍🏽", "שלום مرحبا",
]  # fmt: skip
SIMILAR_IDS = [
    "alike", "ALIKE", "Alike", "al\u0131ke", "alike ", " alike", "alike  ", "alike\u00a0", "a\u0301like", "álike",
    "àlike", "ａｌｉｋｅ", "alike\u200b", "ALIKE ", "strasse", "straße", "ñ", unicodedata.normalize("NFD", "ñ"), "😀",
    "😁", "12", "0012", "12.0", "1e20", "100000000000000000000", "1E20", "-12", "+12", "-0", "0",
]  # fmt: skip
NUMBERS = ["-1", "-9223372036854775809", "18446744073709551616", "9" * 40]
LONG = {
    "a megabyte": "WIN £1000 now! " * 70_000,
    "a megabyte without a space": "é" * 2**19,
    "a megabyte of ampersands": "&" * 2**20,
    "right to left": "\u202e" * 5000 + "free" + "\u202c" * 5000,
    "zero width": "f\u200br\u200de\u2060e" * 5000,
    "combining": "a" + "\u0301" * 10_000 + " win",
    "emoji": "👨‍👩‍👧‍👦🏳️‍🌈" * 3000,
    "one character": "a",
    "invisible": "\u200b",
}

MESSAGES = [
    Message("first of two", "win a prize"),
    Message("null", None, "empty text"),
    Message("empty", "", "empty text"),
    Message("blank", "  \u00a0\u2003\u3000 ", "empty text"),
    Message("blank lines", " \n\t\r\n ", "empty text"),
    Message("lines", "win\nnow\r\nfree\ttoday"),
    *(Message(name, text) for name, text in LONG.items()),
    *(Message(f"text {index}", text) for index, text in enumerate(HOSTILE)),
    *(Message(message_id, "an id of its own") for message_id in [*HOSTILE, *SIMILAR_IDS, *NUMBERS]),
    Message("not utf-8", b"caf\xe9 \xff\xfe win"),
    Message("half a character", b"win \xf0\x9f\x98"),
    Message("a surrogate", b"win \xed\xa0\x80 now"),
    Message(b"id \xff", "its id is not utf-8", stored="id \ufffd"),
    Message("nul", "win\0now"),
    Message("id\0nul", "its id holds NUL", "unusable message_id", "holds a NUL", stored="id?nul"),
    Message(None, "no id", "missing message_id"),
    Message("", "an empty id", "missing message_id"),
    Message("", "", "missing message_id"),
    Message(" ", "a blank id is an id"),
    Message("i" * 255, "an id of 255 characters"),
    Message("😀" * 255, "an id of 255 characters and 1020 bytes"),
    Message("i" * 256, "an id too long", "unusable message_id", "256 characters", stored="i" * 255),
    Message("é" * 300, "an id too long", "unusable message_id", "300 characters", stored="é" * 255),
    Message("x" * 2**20, "an id of a megabyte", "unusable message_id", "1048576 characters", stored="x" * 255),
    Message("near", "first"),
    Message("near", "second", "repeated message_id", "row {near} has it already"),
    Message("i" * 256, "an id too long again", "unusable message_id", "256 characters", stored="i" * 255),
    Message("later", "", "empty text"),
    Message("later", "the first with a text is scored"),
    Message("first of two", "in another chunk", "repeated message_id", "row 1 has it already"),
    Message("last", "the batch continues"),
]

# Writing the messages to a source


def select_for_text_file(separator: str) -> Callable[[Message], bool]:
    def can_hold(message: Message) -> bool:
        values = [message.message_id, message.text]
        lines = separator == "\t" and any(isinstance(value, str) and set(value) & set("\t\r\n") for value in values)
        return None not in values and not lines

    return can_hold


def write_csv(messages: Sequence[Message], path: Path) -> None:
    rows = [b",".join(map(csv_field, (message.message_id, message.text))) for message in messages]
    path.write_bytes(b"\n".join([b"message_id,text", *rows]) + b"\n")


def csv_field(value: str | bytes) -> bytes:
    return b'"' + as_bytes(value).replace(b'"', b'""') + b'"'


def write_tsv(messages: Sequence[Message], path: Path) -> None:
    rows = [b"\t".join(map(as_bytes, (message.message_id, message.text))) for message in messages]
    path.write_bytes(b"\n".join([b"message_id\ttext", *rows]) + b"\n")


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def write_jsonl(messages: Sequence[Message], path: Path) -> None:
    def to_json(value: Any) -> bytes:
        return b'"' + value + b'"' if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()

    path.write_bytes(
        b"".join(
            b'{"message_id": %b, "text": %b}\n' % (to_json(message.message_id), to_json(message.text))
            for message in messages
        )
    )


def write_parquet(messages: Sequence[Message], path: Path) -> None:
    texts = [message.text if message.text is None else as_bytes(message.text) for message in messages]
    ids = pa.array([message.message_id for message in messages], pa.string())
    pq.write_table(pa.table({"message_id": ids, "text": pa.array(texts, pa.large_binary())}), path)


def has_text_id(message: Message) -> bool:
    return message.message_id is None or isinstance(message.message_id, str)


def has_id_without_nul(message: Message) -> bool:
    return has_text_id(message) and "\0" not in (message.message_id or "")


def write_table(messages: Sequence[Message], engine: sa.Engine) -> None:
    """Writes the messages to a table of the database of the scores: identifiers as text, texts as bytes."""
    mysql = engine.dialect.name in ("mysql", "mariadb")
    bytes_type = {"postgresql": "bytea", "sqlite": "BLOB"}.get(engine.dialect.name, "LONGBLOB")
    charset = "CHARACTER SET utf8mb4" if mysql else ""
    rows = [
        {
            "place": index,
            "id": message.message_id,
            "body": message.text if message.text is None else as_bytes(message.text),
        }
        for index, message in enumerate(messages)
    ]
    id_type = "LONGTEXT" if mysql else "TEXT"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE inbox (place INTEGER, id {id_type} {charset}, body {bytes_type})")
        for row in rows:
            connection.execute(sa.text("INSERT INTO inbox VALUES (:place, :id, :body)"), row)


JSON_ROWS = [
    (b'{"message_id": 12345678901234567890123, "text": "its digits"}', "12345678901234567890123", None, None),
    (b'{"message_id": 1e21, "text": "as it is written"}', "1e21", None, None),
    (b'{"message_id": 1.50, "text": "as it is written"}', "1.50", None, None),
    (b'{"message_id": false, "text": "false"}', "false", None, None),
    (b'{"message_id": "\\ud83d", "text": "half \\udc00 a pair"}', "\ufffd", None, None),
    (b'{"message_id": [1], "text": "a list"}', None, "unreadable row", "value is not text or a number: column"),
    (b'{"message_id": {"a": 1}, "text": "x"}', None, "unreadable row", "value is not text or a number: column"),
    (b'{"message_id": "n1", "text": 7}', "n1", "unreadable row", "text is not a string: column text holds a number"),
    (b'{"message_id": "n2", "text": ["a"]}', "n2", "unreadable row", "text is not a string: column text holds a list"),
    (b'{"message_id": "n3"}', "n3", "empty text", None),
    (b'{"text": "no id at all"}', None, "missing message_id", None),
    (b'{"message_id": "n4", "text": "broken', None, "unreadable row", "invalid JSON"),
    (b'["n5", "x"]', None, "unreadable row", "not a JSON object: received a list"),
    (b'{"message_id": NaN, "text": "x"}', None, "unreadable row", "invalid JSON"),
    (b"[" * 100_000, None, "unreadable row", "invalid JSON: nested too deep"),
]  # fmt: skip
CSV_ROWS = [
    (b'c1,"win ""big"" at once"', "c1", None, None),
    (b'c0,"win"ner', None, "unreadable row", "malformed CSV"),
    (b"c2", "c2", "unreadable row", "wrong number of fields: expected 2, received 1"),
    (b"c3,a,b", "c3", "unreadable row", "wrong number of fields: expected 2, received 3"),
    (b'c4,"open quote that is never closed', None, "unreadable row", "malformed CSV"),
]
TSV_ROWS = [
    (b'v1\t"a quote is a character', "v1", None, None),
    (b"v2", "v2", "unreadable row", "wrong number of fields: expected 2, received 1"),
    (b"v3\ta\tb", "v3", "unreadable row", "wrong number of fields: expected 2, received 3"),
]

Row = tuple[bytes, str | None, str | None, str | None]


@dataclass(frozen=True)
class FileFormat:
    """A file format: how to write an inbox, which messages it can hold, and rows that only this format can have."""

    write: Callable[[Sequence[Message], Path], None]
    can_hold: Callable[[Message], bool]
    rows: Sequence[Row] = ()


FILES = {
    "csv": FileFormat(write_csv, select_for_text_file(","), CSV_ROWS),
    "tsv": FileFormat(write_tsv, select_for_text_file("\t"), TSV_ROWS),
    "jsonl": FileFormat(write_jsonl, lambda _: True, JSON_ROWS),
    "parquet": FileFormat(write_parquet, has_text_id),
}


# Each source once, and each database with a file and with a query.
SOURCES = [
    ("csv", "sqlite"), ("jsonl", "postgresql"), ("tsv", "mariadb"), ("parquet", "sqlite"),
    ("sql", "sqlite"), ("sql", "postgresql"), ("sql", "mariadb"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "database"), SOURCES, ids=str)
def test_every_bad_message_is_scored_or_rejected_with_its_reason(
    request: pytest.FixtureRequest, trained: Path, tmp_path: Path, source: str, database: str
) -> None:
    url = request.getfixturevalue(f"{database}_url")
    folder = Path(shutil.copytree(trained, tmp_path / "night"))
    messages, rows = MESSAGES, []
    if source == "sql":
        engine = sa.create_engine(url)
        can_hold = has_text_id if database == "sqlite" else has_id_without_nul
        messages = [message for message in MESSAGES if can_hold(message)]
        write_table(messages, engine)
        engine.dispose()
        settings = {"source": "sql", "query": "SELECT id AS message_id, body AS text FROM inbox ORDER BY place"}
    else:
        file_format = FILES[source]
        messages, rows = [message for message in MESSAGES if file_format.can_hold(message)], list(file_format.rows)
        file_format.write(messages, folder / f"inbox.{source}")
        if rows:
            with (folder / f"inbox.{source}").open("ab") as file:
                file.write(b"".join(row[0] + b"\n" for row in rows))
        settings = {"source": "file", "path": f"inbox.{source}", "quote": "none" if source == "tsv" else "auto"}
    settings["max_rejected_share"] = "1"
    write_settings(folder, merge_settings(SMALL, {"messages": settings, "scoring": {"chunk_size": str(CHUNK)}}))
    done = luigi(folder, "ScoreBatch", "--date", DATE, SPAMSCORE_DATABASE_URL=url)
    assert done.code == 0, done.output
    assert_printable(done.output)
    assert f"of {len(messages) + len(rows)} rows (" in done.output, "no warning of replaced characters"

    engine = open_database(DatabaseSettings(url=url))
    scored, rejected = get_expected(messages, rows)
    with read_transaction(engine) as connection:
        ids = list(connection.scalars(sa.select(spam_scores.c.message_id)))
        columns = [rejected_messages.c[name] for name in ("row_number", "message_id", "reason", "detail")]
        refused = [tuple(row) for row in connection.execute(sa.select(*columns).order_by(columns[0]))]
        batch = connection.execute(sa.select(score_batches)).one()
    assert sorted(ids) == sorted(scored)
    assert [row[:3] for row in refused] == [row[:3] for row in rejected]
    for actual, expected in zip(refused, rejected, strict=True):
        assert (actual[3] or "").startswith(expected[3] or "")
        assert (actual[3] is None) == (expected[3] is None)
    assert (batch.messages_read, batch.scored, batch.rejected) == (len(messages) + len(rows), len(ids), len(refused))
    assert_database_checks_counts(engine)
    engine.dispose()
    run_spamscore(folder, url, "verify", DATE)
    if source == "csv":
        assert_commands_escape_ids(folder, url, scored)


def get_expected(
    messages: Sequence[Message], rows: Sequence[Row]
) -> tuple[list[str], list[tuple[int, str | None, str, str | None]]]:
    """Returns the identifiers that are scored, and the rows of `rejected_messages`."""
    scored: list[str] = []
    rejected = []
    near = next(number for number, message in enumerate(messages, 1) if message.message_id == "near")
    assert (near - 1) % CHUNK < CHUNK - 1, "the message and its repetition must be in one chunk: add one before them"
    results = [
        (message.stored_id, message.reason, message.detail and message.detail.format(near=near)) for message in messages
    ]
    for number, (stored, reason, detail) in enumerate([*results, *(row[1:] for row in rows)], 1):
        if reason is None:
            scored.append(str(stored))
        else:
            rejected.append((number, stored, reason, detail))
    return scored, rejected


def assert_database_checks_counts(engine: sa.Engine) -> None:
    for table in (score_batches, batch_chunks):
        for name in ("messages_read", "scored", "rejected"):
            with pytest.raises(exc.IntegrityError), write_transaction(engine) as connection:
                connection.execute(sa.update(table).values({name: table.c[name] + 1}))


def assert_printable(output: str) -> None:
    assert {character for character in output if not character.isprintable()} <= {"\n", "\t"}


def run_spamscore(folder: Path, url: str, *arguments: str) -> str:
    variables = environment(SPAMSCORE_DATABASE_URL=url)
    done = subprocess.run([SPAMSCORE, *arguments], cwd=folder, env=variables, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def assert_commands_escape_ids(folder: Path, url: str, scored: list[str]) -> None:
    by_json = run_spamscore(folder, url, "scores", DATE, "--json")
    for output in (by_json, run_spamscore(folder, url, "scores", DATE), run_spamscore(folder, url, "summary", DATE)):
        assert_printable(output)
    assert sorted(json.loads(line)["message_id"] for line in by_json.splitlines()) == sorted(scored)
    by_csv = csv.DictReader(io.StringIO(run_spamscore(folder, url, "scores", DATE, "--csv"), newline=""))
    assert sorted(row["message_id"] for row in by_csv) == sorted(scored)


# Typed identifiers


def extract_ids(folder: Path, settings: Settings, **variables: str) -> list[str | None]:
    """Extracts a source with the command, and returns the identifiers in the snapshot."""
    write_settings(folder, settings)
    done = luigi(folder, "ExtractMessages", "--date", DATE, **variables)
    assert done.code == 0, done.output
    (snapshot,) = folder.glob(f"artifacts/snapshots/{DATE}/*/{SNAPSHOT_FILE}")
    rows = pq.read_table(snapshot).to_pylist()
    assert {row["text"] for row in rows} == {"win"}
    assert {row["fault"] for row in rows} == {None}
    return [row["message_id"] for row in rows]


SQL_IDS = [
    ("NUMERIC(40, 0)", ["-1", "12345678901234567890123456789012345678", "100000000000000000000", "0"], None),
    ("NUMERIC(10, 2)", ["1.50", "-12.00"], None),
    ("BIGINT", ["-9223372036854775808", "9223372036854775807", "0"], None),
    ("DOUBLE PRECISION", ["1.0", "1e20", "0.5"], ["1", "100000000000000000000", "0.5"]),
    ("DATE", ["'2026-01-31'"], ["2026-01-31"]),
]


@pytest.mark.parametrize(
    ("kind", "written", "read"), SQL_IDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_ids_of_every_type_of_a_database_are_read_exactly(
    database_url: str, tmp_path: Path, kind: str, written: list[str], read: list[str] | None
) -> None:
    engine = sa.create_engine(database_url)
    if engine.dialect.name == "sqlite" and kind.startswith("NUMERIC"):
        pytest.skip("SQLite has no such type")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE inbox (place INTEGER, id {kind})")
        for index, literal in enumerate([*written, "NULL"]):
            connection.exec_driver_sql(f"INSERT INTO inbox VALUES ({index}, {literal})")
    engine.dispose()
    settings = {
        "messages": {"source": "sql", "query": "SELECT id AS message_id, 'win' AS text FROM inbox ORDER BY place"}
    }
    assert extract_ids(tmp_path, settings, SPAMSCORE_DATABASE_URL=database_url) == [*(read or written), None]


PARQUET_IDS = [
    (pa.array([-1, 0, -(2**63), 2**63 - 1, None]), ["-1", "0", str(-(2**63)), str(2**63 - 1), None]),
    (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    (pa.array([Decimal(10**37), Decimal(-1)], pa.decimal128(38, 0)), [str(10**37), "-1"]),
    (pa.array([1.0, 1e20, 0.5, float("nan"), float("inf")]), ["1", str(10**20), "0.5", None, "inf"]),
    (pa.array([True, False]), ["true", "false"]),
    (pa.array([None, None]), [None, None]),
    (pa.array([b"a", b"\xff\x00"]), ["a", "ff00"]),
    (pa.array(["0012", "12", "12 "]).dictionary_encode(), ["0012", "12", "12 "]),
]


@pytest.mark.parametrize(("column", "read"), PARQUET_IDS, ids=[str(column.type) for column, _ in PARQUET_IDS])
def test_ids_of_every_type_of_a_parquet_file_are_read_exactly(
    tmp_path: Path, column: Any, read: list[str | None]
) -> None:
    pq.write_table(pa.table({"message_id": column, "text": ["win"] * len(column)}), tmp_path / "inbox.parquet")
    assert extract_ids(tmp_path, {"messages": {"source": "file", "path": "inbox.parquet"}}) == read


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("message_id", pa.array([["a"], ["b"]])),
        ("message_id", pa.array([{"a": 1}, {"a": 2}])),
        ("text", pa.array([["a"], ["b"]])),
        ("text", pa.array([1, 2])),
    ],
)
def test_a_parquet_column_of_the_wrong_type_is_refused_with_the_way_out(tmp_path: Path, name: str, column: Any) -> None:
    columns = {"message_id": pa.array(["1", "2"]), "text": pa.array(["a", "b"]), name: column}
    pq.write_table(pa.table(columns), tmp_path / "inbox.parquet")
    write_settings(tmp_path, {"messages": {"source": "file", "path": "inbox.parquet"}})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code == 30
    assert "inbox.parquet: [messages]" in done.last_line
    assert "expected a column of text" in done.last_line


# Messages on which the scorer fails

# Runs the real `luigi` command with a scorer that fails on some messages.
FAILING_SCORER_SCRIPT = """
import sys
sys.argv[0] = "luigi"
fails = eval(sys.argv.pop(1))
import luigi.cmdline
import pipeline
from tasks.scoring import local

load_scorer = local.load_scorer

def load_failing_scorer(training, chosen):
    scorer, checkpoint = load_scorer(training, chosen)
    score = scorer.score
    def fail_or_score(texts):
        messages = texts if isinstance(texts, list) else texts.to_pylist()
        if any(map(fails, messages)):
            raise ValueError("cannot make sense of " + next(filter(fails, messages)))
        return score(texts)
    scorer.score = fail_or_score
    return scorer, checkpoint

local.load_scorer = load_failing_scorer
luigi.cmdline.luigi_run(sys.argv[1:])
"""


@pytest.fixture
def inbox(trained: Path, tmp_path: Path) -> Path:
    """A folder with a model and an inbox of 60 messages, in chunks of 20; three of them contain the word poison."""
    folder = Path(shutil.copytree(trained, tmp_path / "night"))
    texts = [f"win prize {index} {'poison' if index in POISONED else ''}" for index in range(60)]
    write_csv([Message(f"m{index}", text) for index, text in enumerate(texts)], folder / "inbox.csv")
    settings = {"messages": {"source": "file", "path": "inbox.csv"}, "scoring": {"chunk_size": "20"}}
    write_settings(folder, merge_settings(SMALL, settings))
    return folder


POISONED = (3, 25, 26)


def run_with_failing_scorer(folder: Path, condition: str) -> tuple[int, str]:
    command = [
        sys.executable,
        "-c",
        FAILING_SCORER_SCRIPT,
        condition,
        "--module",
        "pipeline",
        "ScoreBatch",
        "--date",
        DATE,
    ]
    done = subprocess.run(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def test_only_messages_on_which_the_scorer_fails_are_rejected(inbox: Path) -> None:
    code, output = run_with_failing_scorer(inbox, "lambda text: 'poison' in text")
    assert code == 0, output
    detail = "ValueError: cannot make sense of …"
    rows = query(inbox, "select row_number, message_id, reason, detail from rejected_messages order by 1")
    assert rows == [(index + 1, f"m{index}", "scoring failed", detail) for index in POISONED]
    ids = query(inbox, "select message_id from published_scores")
    assert {message_id for (message_id,) in ids} == {f"m{index}" for index in range(60) if index not in POISONED}
    assert query(inbox, "select messages_read, scored, rejected from score_batches") == [(60, 57, 3)]
    for index in POISONED:
        assert f"WARNING: row {index + 1}, message 'm{index}': scoring failed, message rejected: {detail}" in output


def test_a_scorer_that_fails_on_every_message_fails_the_run_and_rejects_nothing(
    inbox: Path,
) -> None:
    code, output = run_with_failing_scorer(inbox, "lambda text: True")
    assert code == 30
    last = output.rstrip().splitlines()[-1]
    assert "scoring failed" in last
    assert "ValueError: cannot make sense of" in last
    assert "Traceback" not in output
    for table in ("spam_scores", "rejected_messages", "batch_chunks"):
        assert query(inbox, f"select count(*) from {table}") == [(0,)]
    done = luigi(inbox, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    assert query(inbox, "select state, messages_read, scored, rejected from score_batches") == [
        ("published", 60, 60, 0)
    ]
