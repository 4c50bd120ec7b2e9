"""The labels that people give: one a person and message, replaced, taken back, and there on every database."""

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
from tasks.database.labels import MessageLabel, change_labels, find_disputed_messages, read_labels, resolve_labels
from tasks.database.schema import open_database
from tasks.database.tables import labels
from tasks.settings.storage import DatabaseSettings

DATE = datetime.date(2026, 1, 31)
NOON = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.UTC)
ONE = MessageLabel(DATE, "m-1", "ann", "spam", NOON, "WIN now")

ON_ONE_DATABASE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def changed(one: MessageLabel, **values: object) -> MessageLabel:
    return dataclasses.replace(one, **values)  # type: ignore[arg-type]


def test_a_label_comes_back_as_it_was_given(engine: Engine) -> None:
    change_labels(engine, [ONE])
    assert read_labels(engine) == [ONE]
    assert read_labels(engine, DATE) == [ONE]
    assert read_labels(engine, datetime.date(2026, 2, 1)) == []


def test_a_later_label_of_the_same_person_replaces_the_earlier_and_nobody_elses(engine: Engine) -> None:
    another_day = changed(ONE, batch_date=datetime.date(2026, 2, 1))
    others = [changed(ONE, labelled_by="Ann"), changed(ONE, message_id="M-1"), another_day]
    change_labels(engine, [ONE, *others])
    later = changed(ONE, label="ham", labelled_at=NOON + datetime.timedelta(hours=1))
    change_labels(engine, [later])
    assert read_labels(engine)[0] == later
    assert {repr(one) for one in read_labels(engine)} == {repr(one) for one in (later, *others)}


def test_a_label_taken_back_is_gone_and_its_text_with_it(engine: Engine) -> None:
    kept = changed(ONE, message_id="m-2")
    change_labels(engine, [ONE, kept])
    change_labels(engine, [], deleted=[changed(ONE, label="none"), changed(ONE, message_id="never labelled")])
    assert read_labels(engine) == [kept]


def test_all_is_written_or_nothing(engine: Engine) -> None:
    change_labels(engine, [ONE])
    with pytest.raises(sa.exc.IntegrityError):
        change_labels(engine, [changed(ONE, label="ham"), changed(ONE, message_id="m-2", label="eggs")])
    assert read_labels(engine) == [ONE]


@pytest.mark.parametrize("label", ["none", "", "eggs"])
def test_the_database_itself_knows_only_spam_and_ham(engine: Engine, label: str) -> None:
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        connection.execute(sa.insert(labels).values(vars(changed(ONE, label=label))))


@ON_ONE_DATABASE
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_kept_but_that_a_nul_becomes_a_space(engine: Engine, text: str) -> None:
    change_labels(engine, [changed(ONE, text=text)])
    assert [one.text for one in read_labels(engine)] == [text.replace("\0", " ")]


def test_a_message_of_a_megabyte_is_kept_whole(engine: Engine) -> None:
    change_labels(engine, [changed(ONE, text="ü" * 2**20)])
    assert read_labels(engine)[0].text == "ü" * 2**20


def test_two_that_label_the_same_message_at_once_leave_one_label(engine: Engine) -> None:
    both = threading.Barrier(2)
    failures: list[BaseException] = []

    def label(said: str) -> None:
        try:
            for _ in range(10):
                both.wait(30)
                change_labels(engine, [changed(ONE, label=said)])
        except BaseException as error:
            failures.append(error)
            both.abort()

    threads = [threading.Thread(target=label, args=(said,)) for said in ("spam", "ham")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(read_labels(engine)) == 1


def test_where_there_is_no_table_yet_there_are_no_labels_and_none_is_made(database_url: str) -> None:
    engine = connect(DatabaseSettings(url=database_url))
    assert read_labels(engine) == []
    assert not sa.inspect(engine).get_table_names()


def test_a_schema_of_before_there_were_labels_has_none_and_gets_the_table_with_the_first(database_url: str) -> None:
    from alembic import command

    from tasks.database.schema import alembic_config

    engine = open_database(DatabaseSettings(url=database_url))
    with write_transaction(engine) as connection:
        command.downgrade(alembic_config(connection), "0001")
    assert read_labels(engine) == []
    change_labels(open_database(DatabaseSettings(url=database_url)), [ONE])
    assert read_labels(engine) == [ONE]


def test_a_table_of_that_name_that_is_somebody_elses_is_not_taken(database_url: str) -> None:
    from alembic import command

    from models.errors import DatabaseError
    from tasks.database.schema import alembic_config

    engine = open_database(DatabaseSettings(url=database_url))
    with write_transaction(engine) as connection:
        command.downgrade(alembic_config(connection), "0001")
        connection.exec_driver_sql("CREATE TABLE labels (somebody INTEGER)")
    with pytest.raises(DatabaseError, match="labels"):
        open_database(DatabaseSettings(url=database_url))
    with read_transaction(engine) as connection:
        assert [column["name"] for column in sa.inspect(connection).get_columns("labels")] == ["somebody"]


def test_a_message_is_disputed_when_two_people_say_different_things_of_it() -> None:
    elsewhere = changed(ONE, batch_date=datetime.date(2026, 2, 1), labelled_by="bob", label="ham")
    assert find_disputed_messages([ONE, changed(ONE, labelled_by="bob"), elsewhere]) == set()
    assert find_disputed_messages([ONE, changed(ONE, labelled_by="bob", label="ham"), elsewhere]) == {(DATE, "m-1")}


LATER = NOON + datetime.timedelta(seconds=1)


@pytest.mark.parametrize(
    ("other", "taken"),
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
def test_the_latest_label_of_a_text_settles_it(other: dict[str, object], taken: list[tuple[str, str]]) -> None:
    second = changed(ONE, **other)
    assert resolve_labels([ONE, second]) == resolve_labels(iter([second, ONE])) == taken
