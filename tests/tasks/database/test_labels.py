"""Tests that labels are written, replaced, deleted and read on every database."""

from __future__ import annotations

import dataclasses
import datetime
import threading

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from tasks.database.connection import connect, read_transaction, write_transaction
from tasks.database.labels import (
    MessageLabel,
    change_labels,
    count_labelled_messages,
    find_disputed_messages,
    read_labels,
    resolve_labels,
)
from tasks.database.schema import open_database
from tasks.database.tables import labels
from tasks.settings.storage import DatabaseSettings

DATE = datetime.date(2026, 1, 31)
NOON = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.UTC)
ONE = MessageLabel(DATE, "m-1", "ann", "spam", NOON, "WIN now")

ON_ONE_DATABASE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def changed(original: MessageLabel, **values: object) -> MessageLabel:
    return dataclasses.replace(original, **values)  # type: ignore[arg-type]


def test_a_label_is_read_as_it_was_written(engine: Engine) -> None:
    change_labels(engine, [ONE])
    assert read_labels(engine) == [ONE]
    assert read_labels(engine, DATE) == [ONE]
    assert read_labels(engine, datetime.date(2026, 2, 1)) == []


def test_a_later_label_replaces_only_the_earlier_one_of_the_same_person(engine: Engine) -> None:
    another_day = changed(ONE, batch_date=datetime.date(2026, 2, 1))
    others = [changed(ONE, labelled_by="Ann"), changed(ONE, message_id="M-1"), another_day]
    change_labels(engine, [ONE, *others])
    later = changed(ONE, label="ham", labelled_at=NOON + datetime.timedelta(hours=1))
    change_labels(engine, [later])
    assert read_labels(engine)[0] == later
    assert {repr(label) for label in read_labels(engine)} == {repr(label) for label in (later, *others)}


def test_a_deleted_label_is_gone_with_its_text(engine: Engine) -> None:
    remaining = changed(ONE, message_id="m-2")
    change_labels(engine, [ONE, remaining])
    change_labels(engine, [], deleted=[changed(ONE, label="none"), changed(ONE, message_id="never labelled")])
    assert read_labels(engine) == [remaining]


def test_a_message_that_several_people_labelled_counts_once(engine: Engine) -> None:
    assert count_labelled_messages(engine) == {}
    another_day = datetime.date(2026, 2, 1)
    others = [changed(ONE, labelled_by="bob"), changed(ONE, message_id="m-2"), changed(ONE, batch_date=another_day)]
    change_labels(engine, [ONE, *others])
    assert count_labelled_messages(engine) == {DATE: 2, another_day: 1}


def test_either_all_labels_are_written_or_none(engine: Engine) -> None:
    change_labels(engine, [ONE])
    with pytest.raises(sa.exc.IntegrityError):
        change_labels(engine, [changed(ONE, label="ham"), changed(ONE, message_id="m-2", label="eggs")])
    assert read_labels(engine) == [ONE]


@pytest.mark.parametrize("label", ["none", "", "eggs"])
def test_the_database_accepts_only_spam_and_ham(engine: Engine, label: str) -> None:
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        connection.execute(sa.insert(labels).values(vars(changed(ONE, label=label))))


@ON_ONE_DATABASE
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_stored_with_nul_replaced_by_a_space(engine: Engine, text: str) -> None:
    change_labels(engine, [changed(ONE, text=text)])
    assert [label.text for label in read_labels(engine)] == [text.replace("\0", " ")]


def test_a_message_of_a_megabyte_is_stored_completely(engine: Engine) -> None:
    change_labels(engine, [changed(ONE, text="ü" * 2**20)])
    assert read_labels(engine)[0].text == "ü" * 2**20


def test_concurrent_labels_of_one_message_leave_one_label(engine: Engine) -> None:
    both = threading.Barrier(2)
    failures: list[BaseException] = []

    def write_labels(label: str) -> None:
        try:
            for _ in range(10):
                both.wait(30)
                change_labels(engine, [changed(ONE, label=label)])
        except BaseException as error:
            failures.append(error)
            both.abort()

    threads = [threading.Thread(target=write_labels, args=(label,)) for label in ("spam", "ham")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(read_labels(engine)) == 1


def test_without_a_table_there_are_no_labels_and_no_table_is_created(database_url: str) -> None:
    engine = connect(DatabaseSettings(url=database_url))
    assert read_labels(engine) == []
    assert not sa.inspect(engine).get_table_names()


def test_a_schema_without_labels_has_none_and_gets_the_table_when_opened(database_url: str) -> None:
    from alembic import command

    from tasks.database.schema import alembic_config

    engine = open_database(DatabaseSettings(url=database_url))
    with write_transaction(engine) as connection:
        command.downgrade(alembic_config(connection), "0001")
    assert read_labels(engine) == []
    change_labels(open_database(DatabaseSettings(url=database_url)), [ONE])
    assert read_labels(engine) == [ONE]


def test_a_labels_table_of_another_application_is_not_used(database_url: str) -> None:
    from alembic import command

    from models.errors import DatabaseError
    from tasks.database.schema import alembic_config

    engine = open_database(DatabaseSettings(url=database_url))
    with write_transaction(engine) as connection:
        command.downgrade(alembic_config(connection), "0001")
        connection.exec_driver_sql("CREATE TABLE labels (other_application INTEGER)")
    with pytest.raises(DatabaseError, match="labels"):
        open_database(DatabaseSettings(url=database_url))
    with read_transaction(engine) as connection:
        assert [column["name"] for column in sa.inspect(connection).get_columns("labels")] == ["other_application"]


def test_a_message_with_two_different_labels_is_disputed() -> None:
    elsewhere = changed(ONE, batch_date=datetime.date(2026, 2, 1), labelled_by="bob", label="ham")
    assert find_disputed_messages([ONE, changed(ONE, labelled_by="bob"), elsewhere]) == set()
    assert find_disputed_messages([ONE, changed(ONE, labelled_by="bob", label="ham"), elsewhere]) == {(DATE, "m-1")}


LATER = NOON + datetime.timedelta(seconds=1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label": "ham", "labelled_by": "bob", "labelled_at": LATER}, [("ham", "WIN now")]),
        ({"label": "ham", "message_id": "m-9", "batch_date": DATE.replace(day=1), "labelled_at": LATER},
         [("ham", "WIN now")]),
        ({"label": "spam", "labelled_by": "bob", "labelled_at": LATER}, [("spam", "WIN now")]),
        ({"label": "ham", "labelled_by": "bob"}, [("ham", "WIN now"), ("spam", "WIN now")]),
        ({"label": "ham", "message_id": "m-2", "text": "lunch?"}, [("spam", "WIN now"), ("ham", "lunch?")]),
    ],
    ids=["another person", "a copy of another date", "the same again", "at the same instant", "another message"],
)  # fmt: skip
def test_the_latest_label_of_a_text_is_used(changes: dict[str, object], expected: list[tuple[str, str]]) -> None:
    second = changed(ONE, **changes)
    assert resolve_labels([ONE, second]) == resolve_labels(iter([second, ONE])) == expected
