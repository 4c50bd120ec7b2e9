"""Tests the constraints of the tables on each database, and that stored values are read back unchanged."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from tasks.database.connection import read_transaction, write_transaction
from tasks.database.tables import (
    batch_chunks,
    batch_drift,
    metadata,
    published_scores,
    rejected_messages,
    score_batches,
    spam_scores,
)

DATE = datetime.date(2026, 1, 31)
NOON = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.UTC)
COUNTS = {"messages_read": 3, "scored": 2, "rejected": 1, "flagged": 1, "checksum": "0" * 16, "published_at": NOON}

ON_ONE_DATABASE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


ANY_ID = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=255)


def add_batch(engine: Engine, state: str = "running", date: datetime.date = DATE, **values: Any) -> int:
    row = {
        "batch_date": date, "state": state, "model_name": "spam_ham", "model_version": 1, "checkpoint": "ckpt-1",
        "recipe": "0123456789abcdef", "snapshot": "snapshot", "threshold": 0.5, "devices": "cpu:0", "chunk_size": 10,
        "started_at": NOON, **values,
    }  # fmt: skip
    with write_transaction(engine) as connection:
        key = connection.execute(sa.insert(score_batches).values(row)).inserted_primary_key
        assert key is not None
        return int(key.batch_id)


def add_scores(engine: Engine, batch_id: int, *message_ids: str) -> None:
    values = {"batch_id": batch_id, "spam_probability": 0.5, "flagged": True}
    rows = [{**values, "message_id": message_id} for message_id in message_ids]
    with write_transaction(engine) as connection:
        connection.execute(sa.insert(spam_scores), rows)


def message_ids(engine: Engine, batch_id: int) -> list[str]:
    statement = sa.select(spam_scores.c.message_id).where(spam_scores.c.batch_id == batch_id)
    with read_transaction(engine) as connection:
        return list(connection.scalars(statement.order_by(spam_scores.c.message_id)))


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        ("running", "running", False),
        ("published", "published", False),
        ("running", "published", True),
        ("superseded", "superseded", True),
        ("withdrawn", "withdrawn", True),
        ("superseded", "published", True),
    ],
)
def test_a_date_has_at_most_one_running_and_one_published_batch(
    engine: Engine, first: str, second: str, allowed: bool
) -> None:
    add_batch(engine, first, **COUNTS)
    if allowed:
        add_batch(engine, second, **COUNTS)
    else:
        with pytest.raises(sa.exc.IntegrityError):
            add_batch(engine, second, **COUNTS)
    add_batch(engine, second, date=DATE + datetime.timedelta(days=1), **COUNTS)


@pytest.mark.parametrize(
    ("state", "values"),
    [
        ("done", COUNTS),
        ("published", {}),
        *(("published", {**COUNTS, name: None}) for name in COUNTS),
        ("published", {**COUNTS, "messages_read": 4}),
        ("superseded", {**COUNTS, "messages_read": 4}),
    ],
)
def test_an_unknown_state_and_an_incomplete_published_batch_are_rejected(
    engine: Engine, state: str, values: dict[str, Any]
) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        add_batch(engine, state, **values)


@pytest.mark.parametrize("probability", [-0.000001, 1.000001, None])
def test_a_probability_outside_0_to_1_is_rejected(engine: Engine, probability: float | None) -> None:
    batch_id = add_batch(engine)
    row = {"batch_id": batch_id, "message_id": "a", "spam_probability": probability, "flagged": True}
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        connection.execute(sa.insert(spam_scores).values(row))


def test_a_chunk_that_loses_a_message_is_rejected(engine: Engine) -> None:
    row = {
        "batch_id": add_batch(engine), "chunk_number": 0, "first_row": 0, "messages_read": 3, "scored": 1,
        "rejected": 1, "flagged": 0, "checksum": "0" * 16, "seconds": 0.1, "written_at": NOON,
    }  # fmt: skip
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        connection.execute(sa.insert(batch_chunks).values(row))


@pytest.mark.parametrize("table", [spam_scores, rejected_messages, batch_chunks, batch_drift])
def test_row_tables_have_a_foreign_key_to_the_batch_except_scores_on_postgresql(
    engine: Engine, table: sa.Table
) -> None:
    keys = [key["referred_table"] for key in sa.inspect(engine).get_foreign_keys(table.name)]
    has_no_key = engine.dialect.name == "postgresql" and table is spam_scores
    assert keys == ([] if has_no_key else ["score_batches"])


def test_a_batch_with_a_chunk_cannot_be_deleted(engine: Engine) -> None:
    batch_id = add_batch(engine)
    row = {
        "batch_id": batch_id, "chunk_number": 0, "first_row": 0, "messages_read": 1, "scored": 1, "rejected": 0,
        "flagged": 0, "checksum": "0" * 16, "seconds": 0.1, "written_at": NOON,
    }  # fmt: skip
    with write_transaction(engine) as connection:
        connection.execute(sa.insert(batch_chunks).values(row))
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        connection.execute(sa.delete(score_batches))


def test_the_number_of_a_deleted_batch_is_not_reused(engine: Engine) -> None:
    first = add_batch(engine)
    with write_transaction(engine) as connection:
        connection.execute(sa.delete(score_batches))
    assert add_batch(engine) > first


def test_ids_that_differ_in_case_accent_or_trailing_space_are_different(engine: Engine) -> None:
    similar = ["a", "A", "a ", "a  ", " a", "á", "a\u0301", "ａ", "ß", "ss", "😀", "a\t", ""]
    batch_id = add_batch(engine)
    add_scores(engine, batch_id, *similar)
    assert message_ids(engine, batch_id) == sorted(similar)


def test_a_message_has_one_score_in_a_batch(engine: Engine) -> None:
    batch_id = add_batch(engine)
    add_scores(engine, batch_id, "a")
    with pytest.raises(sa.exc.IntegrityError):
        add_scores(engine, batch_id, "a")


@ON_ONE_DATABASE
@given(ids=st.sets(ANY_ID, min_size=1))
def test_ids_are_read_back_unchanged_and_sorted_like_python(engine: Engine, ids: set[str]) -> None:
    with write_transaction(engine) as connection:
        connection.execute(sa.delete(spam_scores))
        connection.execute(sa.delete(score_batches))
    batch_id = add_batch(engine)
    add_scores(engine, batch_id, *ids)
    assert message_ids(engine, batch_id) == sorted(ids)


@ON_ONE_DATABASE
@given(
    value=st.datetimes(
        min_value=datetime.datetime(1971, 1, 1),
        max_value=datetime.datetime(2100, 1, 1),
        timezones=st.timezones(),
        allow_imaginary=False,
    )
)
def test_times_are_read_back_in_utc_with_microseconds(engine: Engine, value: datetime.datetime) -> None:
    with write_transaction(engine) as connection:
        connection.execute(sa.delete(score_batches))
    add_batch(engine, started_at=value)
    with read_transaction(engine) as connection:
        stored = connection.scalar(sa.select(score_batches.c.started_at))
    # Compared in UTC: Python treats an ambiguous local time as unequal to the same time in any other zone.
    assert (stored, stored.tzinfo) == (value.astimezone(datetime.UTC), datetime.UTC)


def test_a_session_with_another_time_zone_reads_the_same_times(postgresql_url: str) -> None:
    from tasks.database.schema import open_database
    from tasks.settings.storage import DatabaseSettings

    add_batch(open_database(DatabaseSettings(url=postgresql_url)))
    other_session = open_database(DatabaseSettings(url=f"{postgresql_url}&options=-c%20timezone%3DAsia/Kathmandu"))
    with read_transaction(other_session) as connection:
        stored = connection.scalar(sa.select(score_batches.c.started_at))
    assert (stored, stored.tzinfo) == (NOON, datetime.UTC)


def test_a_time_without_a_time_zone_is_rejected(engine: Engine) -> None:
    with pytest.raises(Exception, match="expected a datetime with a time zone"):
        add_batch(engine, started_at=datetime.datetime(2026, 1, 31))


def test_the_view_shows_only_the_published_batch(engine: Engine) -> None:
    for state, name in [("running", "r"), ("published", "p"), ("superseded", "s"), ("withdrawn", "w")]:
        add_scores(engine, add_batch(engine, state, **COUNTS, model_version=7), name)
    with read_transaction(engine) as connection:
        (row,) = connection.execute(sa.select(published_scores)).all()
    assert row._asdict() == {
        "batch_date": DATE, "message_id": "p", "spam_probability": 0.5, "flagged": True, "model_version": 7,
        "batch_id": row.batch_id, "scored_at": NOON,
    }  # fmt: skip


def test_all_constraints_have_unique_names() -> None:
    named = [constraint.name for table in metadata.tables.values() for constraint in table.constraints]
    assert all(named)
    assert len(set(named)) == len(named)
