"""Tests that rows are inserted unchanged on every database, and that errors are SQLAlchemy's whatever the driver."""

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


def to_columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def read_rows(engine: Engine, table: sa.Table) -> list[tuple[Any, ...]]:
    with read_transaction(engine) as connection:
        return [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=st.dictionaries(
        TEXT, st.tuples(st.integers(0, 10**6).map(lambda millionths: round(millionths / 1e6, 6)), st.booleans())
    ),
    rejected=st.dictionaries(st.integers(0, 2**62), st.tuples(st.none() | TEXT, TEXT, st.none() | TEXT)),
)
def test_rows_are_read_back_bit_for_bit(
    engine: Engine, batch_id: int, scores: dict[str, Any], rejected: dict[int, Any]
) -> None:
    score_rows = sorted((batch_id, message_id, *values) for message_id, values in scores.items())
    rejected_rows = sorted((batch_id, row, *values) for row, values in rejected.items())
    with write_transaction(engine) as connection:
        connection.execute(sa.delete(spam_scores))
        connection.execute(sa.delete(rejected_messages))
        insert_rows(connection, spam_scores, to_columns(SCORES, score_rows))
        insert_rows(connection, rejected_messages, to_columns(REJECTED, rejected_rows))
    assert read_rows(engine, spam_scores) == score_rows
    assert read_rows(engine, rejected_messages) == rejected_rows


def test_more_rows_than_one_slice_and_columns_in_another_order(
    engine: Engine, batch_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SLICE_ROWS", 100)
    rows = [(False, f"{number:05}", batch_id, 0.25) for number in range(1050)]
    with write_transaction(engine) as connection:
        names = ("flagged", "message_id", "batch_id", "spam_probability")
        insert_rows(connection, spam_scores, to_columns(names, rows))
    assert read_rows(engine, spam_scores) == [(batch_id, row[1], 0.25, False) for row in rows]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([("a", 0.5, True), ("a", 0.5, True)], id="repeated"),
        pytest.param([("a", 0.5, True), ("b", 1.5, True)], id="check"),
        pytest.param([("a", 0.5, True), ("b", None, True)], id="null"),
    ],
)
def test_a_violated_constraint_is_an_integrity_error_and_inserts_nothing(
    engine: Engine, batch_id: int, rows: list[Any]
) -> None:
    with pytest.raises(sa.exc.IntegrityError) as caught, write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, to_columns(SCORES, [(batch_id, *row) for row in rows]))
    assert isinstance(caught.value.orig, Exception)
    assert read_rows(engine, spam_scores) == []


def test_columns_may_be_arrays(engine: Engine, batch_id: int) -> None:
    scores = np.random.default_rng(0).random(2_500)
    ids = [f"{number:05}" for number in range(len(scores))]
    columns = {"batch_id": np.full(len(scores), batch_id), "message_id": ids, "spam_probability": scores}
    with write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, {**columns, "flagged": scores >= 0.5})
    assert read_rows(engine, spam_scores) == [
        (batch_id, message_id, score, score >= 0.5) for message_id, score in zip(ids, scores.tolist(), strict=True)
    ]


def test_columns_of_different_lengths_are_rejected(engine: Engine, batch_id: int) -> None:
    columns = {"batch_id": [batch_id] * 2, "message_id": ["a"], "spam_probability": [0.5], "flagged": [True]}
    with pytest.raises(ValueError, match=r"length|shorter"), write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, columns)
    assert read_rows(engine, spam_scores) == []


def test_no_rows_send_no_statement(engine: Engine) -> None:
    with write_transaction(engine) as connection:
        insert_rows(connection, spam_scores, {"no such column": []})


@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_a_text_that_is_too_long_is_rejected_and_not_truncated(server: str, request: pytest.FixtureRequest) -> None:
    engine = open_database(DatabaseSettings(url=request.getfixturevalue(server)))
    with pytest.raises(DatabaseError, match="too long"), write_transaction(engine) as connection:
        insert_rows(connection, rejected_messages, to_columns(REJECTED, [(1, 1, "a", "x" * 65, None)]))


def test_a_session_lost_during_copy_is_reported_as_lost(postgresql_url: str) -> None:
    engine = open_database(DatabaseSettings(url=postgresql_url))
    with (
        pytest.raises(DatabaseError, match="terminating connection") as caught,
        write_transaction(engine) as connection,
    ):
        copy_and_lose(engine, connection)
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    assert caught.value.__cause__.connection_invalidated


def copy_and_lose(engine: Engine, connection: Connection) -> None:
    session = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with read_transaction(engine) as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({session}, 5000)")
    insert_rows(connection, spam_scores, to_columns(SCORES, [(1, "a", 0.5, True)]))


def test_the_error_for_a_column_type_unknown_to_copy_names_the_column(postgresql_url: str) -> None:
    engine = open_database(DatabaseSettings(url=postgresql_url))
    with pytest.raises(TypeError, match=r"batch_chunks\.written_at"), write_transaction(engine) as connection:
        insert_rows(connection, batch_chunks, {"written_at": [None]})
