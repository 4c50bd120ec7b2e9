"""Rows go in whole, as they are, by each database's own way; a refusal is SQLAlchemy's error whatever the driver."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection, Engine

from models.errors import DatabaseError
from tasks.database import writer
from tasks.database.connection import read_transaction, write_transaction
from tasks.database.schema import open_database
from tasks.database.tables import batch_chunks, rejected_messages, score_batches, spam_scores
from tasks.database.writer import insert_rows
from tasks.settings.storage import DatabaseSettings

SCORES = ("batch_id", "message_id", "spam_probability", "flagged")
REJECTED = ("batch_id", "row_number", "message_id", "reason", "detail")
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64)


@pytest.fixture
def batch_id(engine: Engine) -> int:
    row = {
        "batch_date": datetime.date(2026, 1, 31), "state": "running", "model_name": "spam_ham", "model_version": 1,
        "checkpoint": "ckpt-1", "recipe": "0123456789abcdef", "snapshot": "snapshot", "threshold": 0.5,
        "devices": "cpu:0", "chunk_size": 10, "started_at": datetime.datetime.now(datetime.UTC),
    }  # fmt: skip
    with write_transaction(engine) as connection:
        key: Any = connection.execute(sa.insert(score_batches).values(row)).inserted_primary_key
        return int(key.batch_id)


def columns_of(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def rows_of(engine: Engine, table: sa.Table) -> list[tuple[Any, ...]]:
    with read_transaction(engine) as connection:
        return [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=st.dictionaries(TEXT, st.tuples(st.integers(0, 10**6).map(lambda one: round(one / 1e6, 6)), st.booleans())),
    refused=st.dictionaries(st.integers(0, 2**62), st.tuples(st.none() | TEXT, TEXT, st.none() | TEXT)),
)
def test_rows_come_back_to_the_last_bit(
    engine: Engine, batch_id: int, scores: dict[str, Any], refused: dict[int, Any]
) -> None:
    score_rows = sorted((batch_id, message_id, *values) for message_id, values in scores.items())
    refused_rows = sorted((batch_id, row, *values) for row, values in refused.items())
    with write_transaction(engine) as connection:
        connection.execute(sa.delete(spam_scores))
        connection.execute(sa.delete(rejected_messages))
        insert_rows(connection, spam_scores, columns_of(SCORES, score_rows))
        insert_rows(connection, rejected_messages, columns_of(REJECTED, refused_rows))
    assert rows_of(engine, spam_scores) == score_rows
    assert rows_of(engine, rejected_messages) == refused_rows


def test_more_rows_than_one_slice_and_columns_in_another_order(
    engine: Engine, batch_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SLICE_ROWS", 100)
    rows = [(False, f"{number:05}", batch_id, 0.25) for number in range(1050)]
    with write_transaction(engine) as connection:
        names = ("flagged", "message_id", "batch_id", "spam_probability")
        insert_rows(connection, spam_scores, columns_of(names, rows))
    assert rows_of(engine, spam_scores) == [(batch_id, row[1], 0.25, False) for row in rows]


@pytest.mark.parametrize("driver", [None, "another"])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([("a", 0.5, True), ("a", 0.5, True)], id="repeated"),
        pytest.param([("a", 0.5, True), ("b", 1.5, True)], id="check"),
        pytest.param([("a", 0.5, True), ("b", None, True)], id="null"),
    ],
)
def test_a_broken_rule_is_an_integrity_error_and_leaves_nothing(
    engine: Engine, batch_id: int, rows: list[Any], driver: str | None
) -> None:
    if driver:
        engine.dialect.driver = driver  # the way of databases that have none of their own
    with pytest.raises(sa.exc.IntegrityError) as refused, write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, columns_of(SCORES, [(batch_id, *row) for row in rows]))
    assert isinstance(refused.value.orig, Exception)
    assert rows_of(engine, spam_scores) == []


def test_databases_without_a_way_of_their_own_take_rows_too(engine: Engine, batch_id: int) -> None:
    engine.dialect.driver = "another"
    rows = [(batch_id, "a", 0.5, True), (batch_id, "b", 0.25, False)]
    with write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, columns_of(SCORES, rows))
    assert rows_of(engine, spam_scores) == rows


@pytest.mark.parametrize("driver", [None, "another"])
def test_columns_may_be_arrays(engine: Engine, batch_id: int, driver: str | None) -> None:
    if driver:
        engine.dialect.driver = driver
    scores = np.random.default_rng(0).random(2_500)
    ids = [f"{number:05}" for number in range(len(scores))]
    columns = {"batch_id": np.full(len(scores), batch_id), "message_id": ids, "spam_probability": scores}
    with write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, {**columns, "flagged": scores >= 0.5})
    assert rows_of(engine, spam_scores) == [
        (batch_id, one, score, score >= 0.5) for one, score in zip(ids, scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize("driver", [None, "another"])
def test_columns_of_two_lengths_are_refused(engine: Engine, batch_id: int, driver: str | None) -> None:
    if driver:
        engine.dialect.driver = driver
    columns = {"batch_id": [batch_id] * 2, "message_id": ["a"], "spam_probability": [0.5], "flagged": [True]}
    with pytest.raises(ValueError, match=r"length|shorter"), write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, columns)
    assert rows_of(engine, spam_scores) == []


def test_no_rows_are_no_statement(engine: Engine) -> None:
    with write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, {"no such column": []})


@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_a_text_too_long_is_refused_and_not_cut(server: str, request: pytest.FixtureRequest) -> None:
    engine = open_database(DatabaseSettings(url=request.getfixturevalue(server)))
    with pytest.raises(DatabaseError, match="too long"), write_transaction(engine) as connection:
        insert_rows(connection, rejected_messages, columns_of(REJECTED, [(1, 1, "a", "x" * 65, None)]))


def test_a_session_lost_in_the_middle_of_a_copy_is_told_as_lost(postgresql_url: str) -> None:
    engine = open_database(DatabaseSettings(url=postgresql_url))
    with pytest.raises(DatabaseError, match="terminating connection") as lost, write_transaction(engine) as connection:
        copy_and_lose(engine, connection)
    assert isinstance(lost.value.__cause__, sa.exc.OperationalError)
    assert lost.value.__cause__.connection_invalidated


def copy_and_lose(engine: Engine, connection: Connection) -> None:
    session = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with read_transaction(engine) as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({session}, 5000)")
    insert_rows(connection, spam_scores, columns_of(SCORES, [(1, "a", 0.5, True)]))


def test_a_column_that_copy_knows_no_type_for_is_named(postgresql_url: str) -> None:
    engine = open_database(DatabaseSettings(url=postgresql_url))
    with pytest.raises(TypeError, match=r"batch_chunks\.written_at"), write_transaction(engine) as connection:
        insert_rows(connection, batch_chunks, {"written_at": [None]})
