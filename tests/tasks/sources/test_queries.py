"""Tests that queries are streamed, bound to their dates and read-only, and that errors name the query."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import servers
import sqlalchemy as sa
from chain import luigi, write_settings
from other_user import readable_folder, run_without_write_permission
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from models.errors import DatabaseError, InputError, SettingsError
from tasks.settings.storage import DatabaseSettings
from tasks.sources.dates import make_date_reader
from tasks.sources.queries import QuerySource, read_query
from tasks.sources.rows import SourceRow

ROOT = Path(__file__).resolve().parents[3]
MESSAGES = {"id_column": "id", "text_column": "text"}
DATED = {**MESSAGES, "date_column": "sent"}
READ_DATE = make_date_reader("iso", None)
NIGHT = {"start": datetime.date(2026, 1, 31), "end": datetime.date(2026, 2, 1)}


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    path = tmp_path / "messages.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE inbox (id INTEGER PRIMARY KEY, text TEXT, sent TEXT)")
        connection.executemany(
            "INSERT INTO inbox VALUES (?, ?, ?)",
            [
                (1, "before", "2026-01-30 23:59:59"),
                (2, "first", "2026-01-31"),
                (3, None, "2026-01-31 12:00:00"),
                (4, "last", "2026-01-31 23:59:59"),
                (5, "after", "2026-02-01 00:00:00"),
            ],
        )
    connection.close()
    return path


def query_source(path: Path | str, query: str, **changes: Any) -> QuerySource:
    url = path if isinstance(path, str) else f"sqlite:///{path}"
    database = DatabaseSettings("sqlite:///not-there.db", 1)
    return QuerySource("messages", query, **{"columns": MESSAGES, "database": database, "url": url, **changes})


def read(*arguments: Any, **changes: Any) -> list[tuple[str | None, ...]]:
    rows = list(read_query(query_source(*arguments, **changes)))
    assert [row.fault for row in rows] == [None] * len(rows)
    return [tuple(row.values.values()) for row in rows]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("", "12345"),
        ("WHERE sent >= :start AND sent < :end", "234"),
        ("WHERE sent >= :start", "2345"),
        ("WHERE date(sent) = :start OR sent = :start", "234"),
        (r"WHERE text <> ' \:end'", "1245"),
        ("WHERE text <> '12:30'", "1245"),
    ],
)
def test_only_the_parameters_that_a_query_uses_are_bound(messages: Path, where: str, ids: str) -> None:
    rows = read(messages, f"SELECT id, text FROM inbox {where} ORDER BY id", parameters=NIGHT)
    assert "".join(str(name) for name, _ in rows) == ids


def test_columns_are_found_by_name_in_any_order(messages: Path) -> None:
    query = "SELECT text AS body, 'x' AS more, id * 10 AS key FROM inbox WHERE id IN (2, 3) ORDER BY id"
    assert read(messages, query, columns={"id_column": "key", "text_column": "body"}) == [("20", "first"), ("30", None)]


def test_without_a_url_the_query_runs_on_the_score_database(messages: Path) -> None:
    rows = read("", "SELECT 1 AS id, 'a' AS text", database=DatabaseSettings(f"sqlite:///{messages}", 1))
    assert rows == [("1", "a")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("CAST(x'61ff62' AS TEXT)", SourceRow(1, {"id": "1", "text": "a\ufffdb"}, None)),
        ("x'61ff62'", SourceRow(1, {"id": "1", "text": "a\ufffdb"}, None)),
        ("'a' || char(0) || 'b'", SourceRow(1, {"id": "1", "text": "a\0b"}, None)),
        ("''", SourceRow(1, {"id": "1", "text": ""}, None)),
        ("7", SourceRow(1, {"id": "1", "text": None}, "text is not a string: column text holds a number")),
    ],
)
def test_a_hostile_value_is_a_row(messages: Path, value: str, expected: SourceRow) -> None:
    assert list(read_query(query_source(messages, f"SELECT 1.0 AS id, {value} AS text"))) == [expected]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT id, text FROM outbox", "no such table: outbox"),
        ("SELECT id, txt FROM inbox", "no such column: txt"),
        ("SELEC id", "syntax error"),
        (
            "SELECT id, text AS txt FROM inbox",
            "text_column = text: no such column; did you mean txt? Columns are id, txt.",
        ),
        ("SELECT id, id, text FROM inbox", "id_column = id: more than one column has the name."),
        ("SELECT id, text FROM inbox WHERE sent = :date", "unknown parameter :date. Parameters are :start and :end"),
        ("DELETE FROM inbox", "attempt to write a readonly database"),
        ("DROP TABLE inbox", "attempt to write a readonly database"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("PRAGMA query_only = ON", "expected a SELECT, received a statement that returns no rows"),
        ("", "expected a SELECT"),
    ],
)
def test_the_error_for_an_unusable_query_names_the_query(messages: Path, query: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read(messages, query, parameters=NIGHT)
    assert str(caught.value).startswith("[messages] query: ")
    assert expected in str(caught.value)
    assert len(read(messages, "SELECT id, text FROM inbox")) == 5


def test_a_missing_sqlite_file_is_rejected_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"\[messages\] url = sqlite.*no such file"):
        read(tmp_path / "other.db", "SELECT 1 AS id, 'a' AS text")
    assert not list(tmp_path.iterdir())


def test_the_error_for_an_unreachable_database_masks_the_password() -> None:
    with pytest.raises(DatabaseError) as caught:
        read("postgresql://reader:s3cret@127.0.0.1:9/inbox", "SELECT 1 AS id, 'a' AS text")
    assert "reader:***@127.0.0.1:9" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_invalid_url_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"\[messages\] url"):
        read("postgresql://reader@host:port/inbox", "SELECT 1")


def test_rows_are_streamed(messages: Path) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
    query = f"{numbers} SELECT i AS id, 'a text' AS text FROM n"
    rows = read_query(query_source(messages, query))
    next(rows)
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows) == 29_999
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_unfinished_read_leaves_no_open_connection(messages: Path) -> None:
    rows = read_query(query_source(messages, "SELECT id, text FROM inbox"))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    with sqlite3.connect(messages, timeout=0) as connection:
        connection.execute("DELETE FROM inbox")
    connection.close()


@pytest.mark.parametrize("statement", ["DELETE FROM inbox", "DROP TABLE inbox", "UPDATE inbox SET text = 'b'"])
def test_no_database_lets_a_query_write(database_url: str, statement: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE inbox (id INTEGER, text VARCHAR(20))")
        connection.exec_driver_sql("INSERT INTO inbox VALUES (1, 'a')")
    engine.dispose()
    with pytest.raises(InputError, match="rejected the query"):
        read(database_url, statement)
    assert read(database_url, "SELECT id, text FROM inbox") == [("1", "a")]


def test_every_database_streams_more_rows_than_one_fetch(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    # MariaDB ends a recursion at 1,000 rows, hence the join.
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)"
    query = f"{numbers} SELECT a.i * 100 + b.i AS id, 'café 😀' AS text FROM n a, n b WHERE b.i <= 9"
    rows = read(database_url, query)
    assert len(rows) == 900 * 9
    assert {text for _, text in rows} == {"café 😀"}


@pytest.fixture
def postgres(postgresql_url: str) -> Iterator[str]:
    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS inbox"))
        connection.execute(sa.text("CREATE TABLE inbox (id uuid, text text, sent timestamptz)"))
        minutes = "'2026-01-30'::timestamptz + n * interval '1 minute' FROM generate_series(0, 4319) n"
        connection.execute(sa.text(f"INSERT INTO inbox SELECT gen_random_uuid(), 'text ' || n, {minutes}"))
    yield postgresql_url
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE inbox"))
    engine.dispose()


def test_postgresql_streams_one_date(postgres: str) -> None:
    query = "SELECT id, text FROM inbox WHERE sent >= :start AND sent < :end ORDER BY sent;"
    rows = read(postgres, query, parameters=NIGHT)
    assert [text for _, text in rows] == [f"text {n}" for n in range(1440, 2880)]
    assert len({name for name, _ in rows}) == 1440


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT id, txt FROM inbox", 'column "txt" does not exist'),
        ("DELETE FROM inbox RETURNING id, text", "rejected the query"),
        ("DROP TABLE inbox", "rejected the query"),
        ("SELECT id, text, 1 / (extract(day from sent) - 31) FROM inbox ORDER BY sent", "division by zero"),
    ],
)
def test_errors_contain_the_message_of_postgresql(postgres: str, query: str, expected: str) -> None:
    with pytest.raises(InputError, match=r"\[messages\] query: .*" + expected.replace(" ", ".")):
        read(postgres, query)
    assert len(read(postgres, "SELECT id, text FROM inbox")) == 4320


def test_a_lost_connection_is_a_database_error(postgres: str) -> None:
    rows = read_query(query_source(postgres, "SELECT pg_backend_pid() AS id, text FROM inbox"))
    process = next(rows).values["id"]
    engine = sa.create_engine(postgres)
    with engine.connect() as connection:
        connection.execute(sa.text(f"SELECT pg_terminate_backend({process})"))
    engine.dispose()
    with pytest.raises(DatabaseError, match=r"connection lost while \[messages\] query was read"):
        list(rows)


def prepare(url: str, *statements: str) -> str:
    """Runs statements in a database, and returns its URL."""
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    return url


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("value", ["infinity", "-infinity", "0044-03-15 BC", "12026-01-31"])
def test_a_date_that_python_cannot_represent_is_read_as_its_text(postgresql_url: str, kind: str, value: str) -> None:
    prepare(
        postgresql_url,
        f"CREATE TABLE inbox (id integer, text text, sent {kind})",
        f"INSERT INTO inbox VALUES (1, 'a', '2026-01-31'), (2, 'b', '{value}'), (3, 'c', NULL)",
    )
    rows = read(postgresql_url, "SELECT id, text, sent FROM inbox ORDER BY id", columns=DATED)
    assert [row[:2] for row in rows] == [("1", "a"), ("2", "b"), ("3", "c")]
    assert str(rows[0][2]).startswith("2026-01-31")
    assert str(rows[1][2]).startswith(value.split()[0])
    assert READ_DATE(rows[0][2]) == datetime.date(2026, 1, 31)
    for row in rows[1:]:
        with pytest.raises(ValueError, match=r"^unreadable date: "):
            READ_DATE(row[2])


def test_a_server_with_another_date_format_is_read_in_iso_8601(postgresql_url: str) -> None:
    name = sa.make_url(postgresql_url).database
    prepare(postgresql_url, f"ALTER DATABASE {name} SET datestyle = 'German, DMY'")
    query = "SELECT 1 AS id, 'a' AS text, timestamp '2026-01-31 12:00' AS sent"
    assert read(postgresql_url, query, columns=DATED) == [("1", "a", "2026-01-31T12:00:00")]


def test_a_zero_date_of_mysql_is_read_as_its_text(mariadb_url: str) -> None:
    prepare(
        mariadb_url,
        "CREATE TABLE inbox (id integer, text varchar(20), sent datetime, day date)",
        "SET sql_mode = ''",
        "INSERT INTO inbox VALUES (1, 'a', '2026-01-31 12:00:00', '2026-01-31'), (2, 'b', '0000-00-00', '2026-02-31')",
    )
    query = "SELECT id, text, {} AS sent FROM inbox ORDER BY id"
    assert [row[2] for row in read(mariadb_url, query.format("sent"), columns=DATED)] == [
        "2026-01-31T12:00:00", "0000-00-00 00:00:00",
    ]  # fmt: skip
    assert [row[2] for row in read(mariadb_url, query.format("day"), columns=DATED)] == ["2026-01-31", "0000-00-00"]


def test_a_text_in_a_date_column_of_sqlite_is_read_as_it_is(tmp_path: Path) -> None:
    url = prepare(
        f"sqlite:///{tmp_path}/inbox.db",
        "CREATE TABLE inbox (id INTEGER, text TEXT, sent DATE)",
        "INSERT INTO inbox VALUES (1, 'a', '2026-01-31'), (2, 'b', 'soon'), (3, 'c', 20260131)",
    )
    rows = read(url, "SELECT id, text, sent FROM inbox ORDER BY id", columns=DATED)
    assert [row[2] for row in rows] == ["2026-01-31", "soon", "20260131"]


@pytest.mark.parametrize("option", ["", "?charset=utf8", "?charset=latin1", "?charset=utf8mb4"])
@pytest.mark.parametrize("default", ["latin1", "utf8mb3", "utf8mb4"])
def test_emoji_of_mysql_are_read_whatever_character_set_the_url_names(
    mariadb_server: URL, option: str, default: str
) -> None:
    with servers.temporary_database(mariadb_server, options=f"CHARACTER SET {default}") as database:
        url = prepare(
            database.update_query_dict({"charset": "utf8mb4"}).render_as_string(hide_password=False),
            "CREATE TABLE inbox (id varchar(20), text varchar(40)) CHARACTER SET utf8mb4",
            "INSERT INTO inbox VALUES ('id 😀', 'café 😀')",
        )
        query = "SELECT id, text FROM inbox WHERE text LIKE '%😀%'"
        assert read(url.replace("?charset=utf8mb4", option), query) == [("id 😀", "café 😀")]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
@pytest.mark.parametrize("option", ["", "&client_encoding=latin1"])
def test_a_database_of_any_encoding_is_read(postgresql_server: URL, encoding: str, option: str) -> None:
    options = f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    with servers.temporary_database(postgresql_server, options=options) as database:
        url = prepare(
            database.render_as_string(hide_password=False) + "&client_encoding=utf8",
            "CREATE TABLE inbox (id text, text text, sent timestamptz)",
            "INSERT INTO inbox VALUES ('é', 'café', '2026-01-31 12:00+00')",
        )
        rows = read(url.replace("&client_encoding=utf8", option), "SELECT * FROM inbox", columns=DATED)
    assert [row[:2] for row in rows] == [("é", "café")]
    assert READ_DATE(rows[0][2]) == datetime.date(2026, 1, 31)


def test_bytes_of_a_sql_ascii_database_that_are_not_utf_8_are_replaced(postgresql_server: URL) -> None:
    options = "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    with servers.temporary_database(postgresql_server, options=options) as database:
        query = r"SELECT 1 AS id, convert_from('\x636166e9', 'SQL_ASCII') AS text"
        engine = sa.create_engine(database, connect_args={"client_encoding": "utf8"}, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL client_encoding TO SQL_ASCII")
            connection.exec_driver_sql(f"CREATE TABLE inbox AS {query}")
        rows = read(database.render_as_string(hide_password=False), "SELECT id, text FROM inbox")
    assert rows == [("1", "caf\ufffd")]


READ = """
import sys
from tasks.settings.storage import DatabaseSettings
from tasks.sources.dates import make_date_reader
from tasks.sources.queries import QuerySource, read_query
source = QuerySource("messages", "SELECT id, text FROM inbox", {"text_column": "text"}, DatabaseSettings(), sys.argv[1])
try:
    print([row.values for row in read_query(source)])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            "WAL",
            "Grant write permission on the folder; or run, as the owner, sqlite3 {path} 'PRAGMA",
        ),
        ("DELETE", "[{{'text': 'a'}}]"),
    ],
)
def test_a_wal_file_that_cannot_be_read_without_write_permission_says_what_to_do(mode: str, expected: str) -> None:
    with readable_folder() as folder:
        url = prepare(
            f"sqlite:///{folder}/inbox.db",
            "CREATE TABLE inbox (id INTEGER, text TEXT)",
            "INSERT INTO inbox VALUES (1, 'a')",
        )
        with contextlib.closing(sqlite3.connect(folder / "inbox.db")) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}")
        done = run_without_write_permission(folder, sys.executable, "-c", READ, url, cwd=ROOT)
    assert expected.format(path=folder / "inbox.db") in done.stdout
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


SQL_SOURCE = {"source": "sql", "query": "SELECT id, text, sent FROM inbox ORDER BY id", "date_column": "sent"}


@pytest.mark.parametrize(
    ("kind", "option", "statements"),
    [
        (
            "postgresql_url",
            "",
            [
                "CREATE TABLE inbox (id text, text text, sent timestamptz)",
                "INSERT INTO inbox VALUES ('id 😀', 'café 😀', '2026-01-31 12:00'), ('b', 'b', 'infinity')",
            ],
        ),
        (
            "mariadb_url",
            "?charset=utf8",
            [
                "CREATE TABLE inbox (id varchar(20), text text, sent datetime) CHARACTER SET utf8mb4",
                "SET sql_mode = ''",
                "INSERT INTO inbox VALUES ('id 😀', 'café 😀', '2026-01-31 12:00'), ('zero', 'b', '0000-00-00')",
            ],
        ),
    ],
)
def test_a_run_reads_the_messages_of_a_date_and_rejects_an_unreadable_date(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, option: str, statements: list[str]
) -> None:
    database = request.getfixturevalue(kind)
    prepare(f"{database}?charset=utf8mb4" if option else database, *statements)
    write_settings(tmp_path, {"messages": {**SQL_SOURCE, "id_column": "id", "max_rejected_share": "1"}})
    done = luigi(tmp_path, "ExtractMessages", "--date", "2026-01-31", SPAMSCORE_MESSAGES_URL=f"{database}{option}")
    assert done.code == 0, done.output
    (snapshot,) = tmp_path.glob("artifacts/snapshots/2026-01-31/*/messages.parquet")
    rows = pq.read_table(snapshot, columns=["message_id", "text", "fault"]).to_pylist()
    good = {"message_id": "id 😀", "text": "café 😀", "fault": None}
    assert good in rows
    (bad,) = [row for row in rows if row != good]
    assert bad["fault"].startswith("unreadable date: received ")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://u:s3cret@127.0.0.1:1/sms?ssl-mode=REQUIRED", "no such option: ssl-mode. For TLS: ssl_ca="),
        ("postgresql+psycopg2://u:s3cret@127.0.0.1:1/sms", "the driver psycopg2 is not supported. Write postgresql://"),
    ],
)
def test_a_run_with_an_unusable_url_ends_with_one_line(tmp_path: Path, url: str, reason: str) -> None:
    write_settings(tmp_path, {"messages": {**SQL_SOURCE, "id_column": "id"}})
    done = luigi(tmp_path, "ExtractMessages", "--date", "2026-01-31", SPAMSCORE_MESSAGES_URL=url)
    assert done.code == 30
    assert f"[messages] url = {url.partition(':')[0]}" in done.last_line
    assert reason in done.last_line
    assert "Traceback" not in done.output
    assert "s3cret" not in done.output
