"""Bad messages through the front door: each is scored, or is a row of `rejected_messages` with its reason, and what is
in it is taken for a text and for nothing else. The batch goes on.
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

from tasks.database.connection import reading, writing
from tasks.database.schema import open_database
from tasks.database.tables import batch_chunks, rejected_messages, score_batches, spam_scores
from tasks.settings.storage import DatabaseSettings
from tasks.sources.snapshots import SNAPSHOT_FILE

SPAMSCORE = LUIGI.with_name("spamscore")
CHUNK = 30


@dataclass(frozen=True)
class Message:
    """One message of the inbox and what should become of it.

    Attributes:
        message_id: its identifier; bytes are written as they are, numbers and the like as such where there are types.
        text: the message; likewise.
        reason: why it is rejected, or None if it is scored.
        detail: what the detail of a rejected one begins with.
        stored: its identifier in the database, where that is another than the text of the one given.
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
ALIKE = [
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
    *(Message(f"text {place}", text) for place, text in enumerate(HOSTILE)),
    *(Message(one, "an id of its own") for one in [*HOSTILE, *ALIKE, *NUMBERS]),
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
    Message("later", "", "empty text"),
    Message("later", "the first that holds something is scored"),
    Message("first of two", "in another chunk", "repeated message_id", "another chunk of the batch has it"),
    Message("last", "the batch goes on"),
]

# What each source can hold


def text_file(separator: str) -> Callable[[Message], bool]:
    def holds(message: Message) -> bool:
        values = [message.message_id, message.text]
        lines = separator == "\t" and any(isinstance(one, str) and set(one) & set("\t\r\n") for one in values)
        return None not in values and not lines

    return holds


def write_csv(messages: Sequence[Message], path: Path) -> None:
    rows = [b",".join(map(csv_field, (one.message_id, one.text))) for one in messages]
    path.write_bytes(b"\n".join([b"message_id,text", *rows]) + b"\n")


def csv_field(value: str | bytes) -> bytes:
    return b'"' + as_bytes(value).replace(b'"', b'""') + b'"'


def write_tsv(messages: Sequence[Message], path: Path) -> None:
    rows = [b"\t".join(map(as_bytes, (one.message_id, one.text))) for one in messages]
    path.write_bytes(b"\n".join([b"message_id\ttext", *rows]) + b"\n")


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def write_jsonl(messages: Sequence[Message], path: Path) -> None:
    def value(one: Any) -> bytes:
        return b'"' + one + b'"' if isinstance(one, bytes) else json.dumps(one, ensure_ascii=False).encode()

    path.write_bytes(
        b"".join(b'{"message_id": %b, "text": %b}\n' % (value(one.message_id), value(one.text)) for one in messages)
    )


def write_parquet(messages: Sequence[Message], path: Path) -> None:
    texts = [one.text if one.text is None else as_bytes(one.text) for one in messages]
    ids = pa.array([one.message_id for one in messages], pa.string())
    pq.write_table(pa.table({"message_id": ids, "text": pa.array(texts, pa.large_binary())}), path)


def has_text_id(message: Message) -> bool:
    return message.message_id is None or isinstance(message.message_id, str)


def has_id_without_nul(message: Message) -> bool:
    return has_text_id(message) and "\0" not in (message.message_id or "")


def write_table(messages: Sequence[Message], engine: sa.Engine) -> None:
    """The messages in a table of the database that the scores go to: identifiers as text, texts as bytes."""
    mysql = engine.dialect.name in ("mysql", "mariadb")
    bytes_type = {"postgresql": "bytea", "sqlite": "BLOB"}.get(engine.dialect.name, "LONGBLOB")
    charset = "CHARACTER SET utf8mb4" if mysql else ""
    rows = [
        {"place": place, "id": one.message_id, "body": one.text if one.text is None else as_bytes(one.text)}
        for place, one in enumerate(messages)
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
class FileKind:
    """How an inbox is written as a file, which messages it can hold, and rows that no other kind has."""

    write: Callable[[Sequence[Message], Path], None]
    holds: Callable[[Message], bool]
    rows: Sequence[Row] = ()


FILES = {
    "csv": FileKind(write_csv, text_file(","), CSV_ROWS),
    "tsv": FileKind(write_tsv, text_file("\t"), TSV_ROWS),
    "jsonl": FileKind(write_jsonl, lambda _: True, JSON_ROWS),
    "parquet": FileKind(write_parquet, has_text_id),
}


# Each kind of source once, and each database with a file and with a query.
SOURCES = [
    ("csv", "sqlite"), ("jsonl", "postgresql"), ("tsv", "mariadb"), ("parquet", "sqlite"),
    ("sql", "sqlite"), ("sql", "postgresql"), ("sql", "mariadb"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "database"), SOURCES, ids=lambda one: str(one))
def test_every_bad_message_is_scored_or_rejected_with_its_reason_and_taken_for_text_alone(
    request: pytest.FixtureRequest, trained: Path, tmp_path: Path, source: str, database: str
) -> None:
    url = request.getfixturevalue(f"{database}_url")
    folder = Path(shutil.copytree(trained, tmp_path / "night"))
    messages, rows = MESSAGES, []
    if source == "sql":
        engine = sa.create_engine(url)
        messages = [one for one in MESSAGES if (has_text_id if database == "sqlite" else has_id_without_nul)(one)]
        write_table(messages, engine)
        engine.dispose()
        given = {"source": "sql", "query": "SELECT id AS message_id, body AS text FROM inbox ORDER BY place"}
    else:
        kind = FILES[source]
        messages, rows = [one for one in MESSAGES if kind.holds(one)], list(kind.rows)
        kind.write(messages, folder / f"inbox.{source}")
        if rows:
            with (folder / f"inbox.{source}").open("ab") as file:
                file.write(b"".join(row[0] + b"\n" for row in rows))
        given = {"source": "file", "path": f"inbox.{source}"}
    write_settings(folder, merge_settings(SMALL, {"messages": given, "scoring": {"chunk_size": str(CHUNK)}}))
    done = luigi(folder, "ScoreBatch", "--date", DATE, SPAMSCORE_DATABASE_URL=url)
    assert done.code == 0, done.output
    assert_nothing_acts_on_a_terminal(done.output)

    engine = open_database(DatabaseSettings(url=url))
    scored, rejected = expected(messages, rows)
    with reading(engine) as connection:
        ids = list(connection.scalars(sa.select(spam_scores.c.message_id)))
        columns = [rejected_messages.c[name] for name in ("row_number", "message_id", "reason", "detail")]
        refused = [tuple(row) for row in connection.execute(sa.select(*columns).order_by(columns[0]))]
        batch = connection.execute(sa.select(score_batches)).one()
    assert sorted(ids) == sorted(scored)
    assert [row[:3] for row in refused] == [row[:3] for row in rejected]
    for found, wanted in zip(refused, rejected, strict=True):
        assert (found[3] or "").startswith(wanted[3] or "")
        assert (found[3] is None) == (wanted[3] is None)
    assert (batch.messages_read, batch.scored, batch.rejected) == (len(messages) + len(rows), len(ids), len(refused))
    assert_the_database_holds_the_counts_together(engine)
    engine.dispose()
    spamscore(folder, url, "verify", DATE)
    if source == "csv":
        assert_the_commands_show_it_harmlessly(folder, url, scored)


def expected(
    messages: Sequence[Message], rows: Sequence[Row]
) -> tuple[list[str], list[tuple[int, str | None, str, str | None]]]:
    """Identifiers that are scored, and rows of `rejected_messages`."""
    scored: list[str] = []
    rejected = []
    near = next(number for number, one in enumerate(messages, 1) if one.message_id == "near")
    assert (near - 1) % CHUNK < CHUNK - 1, "the message and its repetition must be in one chunk: add one before them"
    found = [(one.stored_id, one.reason, one.detail and one.detail.format(near=near)) for one in messages]
    for number, (stored, reason, detail) in enumerate([*found, *(row[1:] for row in rows)], 1):
        if reason is None:
            scored.append(str(stored))
        else:
            rejected.append((number, stored, reason, detail))
    return scored, rejected


def assert_the_database_holds_the_counts_together(engine: sa.Engine) -> None:
    for table in (score_batches, batch_chunks):
        for name in ("messages_read", "scored", "rejected"):
            with pytest.raises(exc.IntegrityError), writing(engine) as connection:
                connection.execute(sa.update(table).values({name: table.c[name] + 1}))


def assert_nothing_acts_on_a_terminal(output: str) -> None:
    assert {one for one in output if not one.isprintable()} <= {"\n", "\t"}


def spamscore(folder: Path, url: str, *arguments: str) -> str:
    variables = environment(SPAMSCORE_DATABASE_URL=url)
    done = subprocess.run([SPAMSCORE, *arguments], cwd=folder, env=variables, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def assert_the_commands_show_it_harmlessly(folder: Path, url: str, scored: list[str]) -> None:
    by_json = spamscore(folder, url, "scores", DATE, "--json")
    for output in (by_json, spamscore(folder, url, "scores", DATE), spamscore(folder, url, "summary", DATE)):
        assert_nothing_acts_on_a_terminal(output)
    assert sorted(json.loads(line)["message_id"] for line in by_json.splitlines()) == sorted(scored)
    by_csv = csv.DictReader(io.StringIO(spamscore(folder, url, "scores", DATE, "--csv"), newline=""))
    assert sorted(row["message_id"] for row in by_csv) == sorted(scored)


# Identifiers that have a type


def extracted_ids(folder: Path, settings: Settings, **variables: str) -> list[str | None]:
    """Identifiers in the snapshot that the command takes of a source."""
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


@pytest.mark.parametrize(("kind", "written", "read"), SQL_IDS, ids=lambda one: one if isinstance(one, str) else "")
def test_ids_of_every_type_of_a_database_are_read_as_they_are(
    database_url: str, tmp_path: Path, kind: str, written: list[str], read: list[str] | None
) -> None:
    engine = sa.create_engine(database_url)
    if engine.dialect.name == "sqlite" and kind.startswith("NUMERIC"):
        pytest.skip("SQLite has no such type")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE inbox (place INTEGER, id {kind})")
        for place, one in enumerate([*written, "NULL"]):
            connection.exec_driver_sql(f"INSERT INTO inbox VALUES ({place}, {one})")
    engine.dispose()
    settings = {
        "messages": {"source": "sql", "query": "SELECT id AS message_id, 'win' AS text FROM inbox ORDER BY place"}
    }
    assert extracted_ids(tmp_path, settings, SPAMSCORE_DATABASE_URL=database_url) == [*(read or written), None]


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
def test_ids_of_every_type_of_a_parquet_file_are_read_as_they_are(
    tmp_path: Path, column: Any, read: list[str | None]
) -> None:
    pq.write_table(pa.table({"message_id": column, "text": ["win"] * len(column)}), tmp_path / "inbox.parquet")
    assert extracted_ids(tmp_path, {"messages": {"source": "file", "path": "inbox.parquet"}}) == read


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("message_id", pa.array([["a"], ["b"]])),
        ("message_id", pa.array([{"a": 1}, {"a": 2}])),
        ("text", pa.array([["a"], ["b"]])),
        ("text", pa.array([1, 2])),
    ],
)
def test_a_parquet_column_that_cannot_be_what_it_should_is_refused_whole_with_the_way_out(
    tmp_path: Path, name: str, column: Any
) -> None:
    columns = {"message_id": pa.array(["1", "2"]), "text": pa.array(["a", "b"]), name: column}
    pq.write_table(pa.table(columns), tmp_path / "inbox.parquet")
    write_settings(tmp_path, {"messages": {"source": "file", "path": "inbox.parquet"}})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code == 30
    assert "inbox.parquet: [messages]" in done.last_line
    assert "expected a column of text" in done.last_line


# Messages that make scoring itself fail

# Runs the real `luigi` command with a scorer that stumbles over some messages.
STUMBLING = """
import sys
sys.argv[0] = "luigi"
stumbles = eval(sys.argv.pop(1))
import luigi.cmdline
import pipeline
from tasks import score_batch

load_scorer = score_batch.load_scorer

def load_stumbling_scorer(training):
    scorer, checkpoint = load_scorer(training)
    score = scorer.score
    def stumbling(texts):
        said = texts if isinstance(texts, list) else texts.to_pylist()
        if any(map(stumbles, said)):
            raise ValueError("cannot make sense of " + next(filter(stumbles, said)))
        return score(texts)
    scorer.score = stumbling
    return scorer, checkpoint

score_batch.load_scorer = load_stumbling_scorer
luigi.cmdline.luigi_run(sys.argv[1:])
"""


@pytest.fixture
def inbox(trained: Path, tmp_path: Path) -> Path:
    """A folder with a model and an inbox of 60 messages, in chunks of 20; three hold a word that others do not."""
    folder = Path(shutil.copytree(trained, tmp_path / "night"))
    texts = [f"win prize {place} {'poison' if place in POISONED else ''}" for place in range(60)]
    write_csv([Message(f"m{place}", text) for place, text in enumerate(texts)], folder / "inbox.csv")
    given = {"messages": {"source": "file", "path": "inbox.csv"}, "scoring": {"chunk_size": "20"}}
    write_settings(folder, merge_settings(SMALL, given))
    return folder


POISONED = (3, 25, 26)


def luigi_stumbling(folder: Path, over: str) -> tuple[int, str]:
    command = [sys.executable, "-c", STUMBLING, over, "--module", "pipeline", "ScoreBatch", "--date", DATE]
    done = subprocess.run(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def test_messages_that_make_scoring_fail_are_set_aside_alone_and_the_batch_goes_on(inbox: Path) -> None:
    code, output = luigi_stumbling(inbox, "lambda text: 'poison' in text")
    assert code == 0, output
    detail = "ValueError: cannot make sense of …"
    rows = query(inbox, "select row_number, message_id, reason, detail from rejected_messages order by 1")
    assert rows == [(place + 1, f"m{place}", "scoring failed", detail) for place in POISONED]
    ids = query(inbox, "select message_id from published_scores")
    assert {one for (one,) in ids} == {f"m{place}" for place in range(60) if place not in POISONED}
    assert query(inbox, "select messages_read, scored, rejected from score_batches") == [(60, 57, 3)]
    for place in POISONED:
        assert f"WARNING: row {place + 1}, message 'm{place}': scoring failed, set aside: {detail}" in output


def test_a_model_that_scores_no_message_ends_the_night_with_nothing_set_aside_and_the_next_run_goes_on(
    inbox: Path,
) -> None:
    code, output = luigi_stumbling(inbox, "lambda text: True")
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
