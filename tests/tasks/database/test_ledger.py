"""A batch is written once: whatever is repeated, killed, doubled or in another's way, on each database."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from models.errors import ArtifactError, DatabaseError
from tasks.database.batches import (
    BatchRow,
    find_completed_dates,
    find_published_batch,
    find_published_dates,
    list_batches,
    recompute_checksum,
    stream_rejections,
    stream_scores,
)
from tasks.database.chunks import (
    REPEATED_MESSAGE_ID,
    UNUSABLE_MESSAGE_ID,
    RejectedMessage,
    ScoredChunk,
    add_checksums,
    checksum_rows,
    format_checksum,
)
from tasks.database.connection import connect, read_transaction, write_transaction
from tasks.database.ledger import (
    BatchPlan,
    commit_chunk,
    find_committed_chunks,
    publish_batch,
    record_times,
    restore_batch,
    start_batch,
    withdraw_batch,
)
from tasks.database.tables import batch_chunks, published_scores, rejected_messages, score_batches, spam_scores
from tasks.settings.storage import DatabaseSettings

DATE = datetime.date(2026, 1, 31)
PLAN = BatchPlan(DATE, "0123456789abcdef", "spam_ham", 3, "ckpt-500", "snapshot", 0.5, "cpu:0", 4)

ON_ONE_DATABASE = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chunk(number: int, ids: Sequence[str], refused: Sequence[RejectedMessage] = (), rows: Any = None) -> ScoredChunk:
    """A chunk of some identifiers, the probability of each made of its own text."""
    probabilities = np.array([round(random.Random(ascii(one)).random(), 6) for one in ids], dtype=np.float64)
    row_numbers = np.arange(len(ids)) + 100 * number if rows is None else np.array(rows)
    return ScoredChunk(number, 100 * number, list(ids), row_numbers, probabilities, probabilities >= 0.5, refused, 0.25)


def begin(engine: Engine, **changes: Any) -> int:
    return start_batch(engine, replace(PLAN, **changes)).batch_id


def published(engine: Engine, ids: Sequence[str] = ("a", "b", "c"), **changes: Any) -> int:
    batch_id = begin(engine, **changes)
    commit_chunk(engine, batch_id, chunk(0, ids))
    publish_batch(engine, batch_id, len(ids))
    return batch_id


def states(engine: Engine) -> dict[int, str]:
    return {row.batch_id: row.state for row in list_batches(engine)}


def counts(engine: Engine) -> dict[str, int]:
    tables = (batch_chunks, spam_scores, rejected_messages)
    with read_transaction(engine) as connection:
        return {table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables}


def scored_ids(engine: Engine, batch_id: int) -> list[str]:
    with read_transaction(engine) as connection:
        return sorted(connection.scalars(sa.select(spam_scores.c.message_id).where(spam_scores.c.batch_id == batch_id)))


# Beginning


def test_a_batch_begun_again_as_it_was_goes_on(engine: Engine) -> None:
    first = start_batch(engine, PLAN)
    commit_chunk(engine, first.batch_id, chunk(1, ["a"]))
    again = start_batch(engine, replace(PLAN, devices="gpu:0", checkpoint="elsewhere/ckpt-500"))
    assert (first.resumed, again.resumed) == (False, True)
    assert again.batch_id == first.batch_id
    assert find_committed_chunks(engine, again.batch_id) == {1}


@pytest.mark.parametrize(
    "change",
    [{"recipe": "f" * 16}, {"model_version": 4}, {"snapshot": "another"}, {"chunk_size": 5}, {"model_name": "x"}],
)
def test_a_batch_begun_otherwise_takes_the_place_of_the_one_left_over(engine: Engine, change: dict[str, Any]) -> None:
    left = begin(engine)
    other = start_batch(engine, replace(PLAN, **change))
    assert not other.resumed
    assert states(engine) == {left: "withdrawn", other.batch_id: "running"}
    assert {row.batch_id: row.ended_at is not None for row in list_batches(engine)} == {
        left: True,
        other.batch_id: False,
    }


def test_a_batch_keeps_what_it_was_planned_as(engine: Engine) -> None:
    before = datetime.datetime.now(datetime.UTC)
    begin(engine)
    (row,) = list_batches(engine)
    assert all(getattr(row, name) == value for name, value in vars(PLAN).items())
    assert before <= row.started_at <= datetime.datetime.now(datetime.UTC)
    assert (row.state, row.published_at, row.ended_at, row.messages_read, row.checksum) == ("running", *[None] * 4)


def test_other_dates_are_left_alone(engine: Engine) -> None:
    first = begin(engine)
    other = begin(engine, batch_date=DATE + datetime.timedelta(days=1), recipe="f" * 16)
    assert states(engine) == {first: "running", other: "running"}


def test_writers_that_begin_at_once_are_given_the_same_batch(engine: Engine) -> None:
    for day in range(5):
        plan = replace(PLAN, batch_date=DATE + datetime.timedelta(days=day))
        found = at_once(4, lambda _, plan=plan: start_batch(engine, plan))
        assert len({one.batch_id for one in found}) == 1
        assert [one.resumed for one in found].count(False) == 1


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Does work in threads that start together; an error of any is an error."""
    ready = threading.Barrier(count, timeout=30)
    with ThreadPoolExecutor(count) as threads:
        return [
            one.result(60)
            for one in [threads.submit(lambda at: (ready.wait(), work(at))[1], at) for at in range(count)]
        ]


# Committing


def test_a_chunk_leaves_its_scores_its_refused_messages_and_its_row_in_the_ledger(engine: Engine) -> None:
    batch_id = begin(engine)
    one = chunk(
        2, ["b", "a", "B", "a "], [RejectedMessage(204, None, "empty text"), RejectedMessage(205, "z", "x", "y")]
    )
    assert commit_chunk(engine, batch_id, one)
    with read_transaction(engine) as connection:
        (row,) = connection.execute(sa.select(batch_chunks)).all()
        stored = connection.execute(sa.select(spam_scores).order_by(spam_scores.c.message_id)).all()
    assert (row.chunk_number, row.first_row, row.messages_read, row.scored, row.rejected) == (2, 200, 6, 4, 2)
    assert (row.flagged, row.checksum, row.seconds) == (int(one.flagged.sum()), format_checksum(one.checksum()), 0.25)
    assert stored == sorted(
        (batch_id, message_id, float(probability), bool(flag))
        for message_id, probability, flag in zip(one.message_ids, one.probabilities, one.flagged, strict=True)
    )
    assert list(stream_rejections(engine, batch_id)) == list(one.rejected)


@pytest.mark.parametrize("ids", [[], ["a"]])
@pytest.mark.parametrize("refused", [[], [RejectedMessage(7, "r", "empty text")]])
def test_a_chunk_may_hold_scores_refused_messages_both_or_nothing(
    engine: Engine, ids: list[str], refused: list[RejectedMessage]
) -> None:
    batch_id = begin(engine)
    assert commit_chunk(engine, batch_id, chunk(0, ids, refused))
    assert counts(engine) == {"batch_chunks": 1, "spam_scores": len(ids), "rejected_messages": len(refused)}
    assert publish_batch(engine, batch_id, len(ids) + len(refused)).checksum == recompute_checksum(engine, batch_id)


def test_a_chunk_committed_again_changes_nothing(engine: Engine) -> None:
    batch_id = begin(engine)
    assert commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))
    assert not commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))
    assert not commit_chunk(engine, batch_id, chunk(0, ["other", "ids"]))
    assert scored_ids(engine, batch_id) == ["a", "b"]


def test_a_copy_of_a_chunk_that_comes_after_publishing_is_turned_away_quietly(engine: Engine) -> None:
    batch_id = published(engine)
    assert not commit_chunk(engine, batch_id, chunk(0, ["a", "b", "c"]))


@pytest.mark.parametrize(
    "end", [lambda engine, one: withdraw_batch(engine, one), lambda engine, _: begin(engine, recipe="f")]
)
def test_a_chunk_for_a_batch_that_another_run_took_over_is_an_error(engine: Engine, end: Callable[..., Any]) -> None:
    batch_id = begin(engine)
    end(engine, batch_id)
    with pytest.raises(DatabaseError, match=rf"batch {batch_id} is withdrawn \(of 2026-01-31\).*run the date again"):
        commit_chunk(engine, batch_id, chunk(0, ["a"]))
    assert counts(engine)["batch_chunks"] == 0


def test_a_chunk_for_a_batch_that_is_not_there_is_an_error(engine: Engine) -> None:
    with pytest.raises(DatabaseError, match="batch 999 is not there"):
        commit_chunk(engine, 999, chunk(0, ["a"]))


def test_writers_that_commit_the_same_chunks_at_once_leave_each_once(engine: Engine) -> None:
    batch_id = begin(engine)
    chunks = [chunk(number, [f"{number}-{one}" for one in range(50)]) for number in range(6)]
    done = at_once(3, lambda at: [commit_chunk(engine, batch_id, one) for one in chunks[at:] + chunks[:at]])
    assert [
        sum(one) for one in zip(*(written[-at:] + written[:-at] for at, written in enumerate(done)), strict=True)
    ] == [1] * 6
    assert publish_batch(engine, batch_id, 300).checksum == recompute_checksum(engine, batch_id)


def test_processes_that_score_the_same_batch_at_once_leave_each_chunk_once(engine: Engine) -> None:
    script = PREPARE + (
        "for number in range(8):\n"
        "    print(commit_chunk(engine, batch_id, chunk(number, [f'{number}-{one}' for one in range(200)])))\n"
    )
    writers = [start(script, engine) for _ in range(2)]
    said = [one.communicate(timeout=120)[0].split() for one in writers]
    assert [one.returncode for one in writers] == [0, 0]
    assert [sorted(pair) for pair in zip(*said, strict=True)] == [["False", "True"]] * 8
    (batch,) = list_batches(engine)
    assert publish_batch(engine, batch.batch_id, 1600).scored == 1600


@pytest.mark.parametrize("moment", ["before the scores", "amid the scores", "before the commit"])
def test_a_writer_killed_in_a_chunk_leaves_nothing_of_it_and_the_chunk_can_be_written(
    engine: Engine, moment: str
) -> None:
    script = PREPARE + (
        "import sys, time, tasks.database.ledger as ledger\n"
        "write = ledger.insert_rows\n"
        "def stop():\n"
        "    print('stopped', flush=True); time.sleep(60)\n"
        "def insert_rows(connection, table, columns):\n"
        "    if sys.argv[2] == 'before the scores': stop()\n"
        "    some = {name: values[:50] for name, values in columns.items()}\n"
        "    if sys.argv[2] == 'amid the scores': write(connection, table, some); stop()\n"
        "    write(connection, table, columns)\n"
        "    if table.name == 'rejected_messages': stop()\n"
        "commit_chunk(engine, batch_id, chunk(0, ['a', 'b']))\n"
        "ledger.insert_rows = insert_rows\n"
        "commit_chunk(engine, batch_id, chunk(1, [str(one) for one in range(100)]))\n"
    )
    writer = start(script, engine, moment)
    assert writer.stdout
    assert writer.stdout.readline() == "stopped\n"
    writer.kill()
    writer.communicate(timeout=30)
    assert counts(engine) == {"batch_chunks": 1, "spam_scores": 2, "rejected_messages": 0}
    batch = start_batch(engine, PLAN)
    assert batch.resumed
    assert commit_chunk(engine, batch.batch_id, chunk(1, [str(one) for one in range(100)]))
    assert publish_batch(engine, batch.batch_id, 102).scored == 102


PREPARE = """
import sys
from types import SimpleNamespace
from datetime import date
import numpy as np
from tasks.database.chunks import ScoredChunk
from tasks.database.schema import open_database
from tasks.database.ledger import BatchPlan, start_batch, commit_chunk
def chunk(number, ids):
    return ScoredChunk(number, 0, ids, np.arange(len(ids)), np.full(len(ids), 0.5), np.ones(len(ids), bool), [], 0.1)
engine = open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=5))
plan = BatchPlan(date(2026, 1, 31), "0123456789abcdef", "spam_ham", 3, "ckpt-500", "snapshot", 0.5, "cpu:0", 4)
batch_id = start_batch(engine, plan).batch_id
"""


def start(script: str, engine: Engine, *arguments: str) -> subprocess.Popen[str]:
    url = engine.url.render_as_string(hide_password=False)
    return subprocess.Popen([sys.executable, "-c", script, url, *arguments], stdout=subprocess.PIPE, text=True)


# Messages that a chunk cannot keep


def test_of_ids_repeated_in_a_chunk_the_earliest_row_keeps_its_score(engine: Engine) -> None:
    batch_id = begin(engine)
    one = chunk(0, ["a", "b", "a", "a"], rows=[7, 8, 5, 9])
    one = replace(one, probabilities=np.array([0.1, 0.2, 0.3, 0.4]), flagged=np.zeros(4, dtype=bool))
    commit_chunk(engine, batch_id, one)
    kept = {row.message_id: row.spam_probability for row in scores_of(engine, batch_id, 4)}
    assert kept == {"a": 0.3, "b": 0.2}
    assert list(stream_rejections(engine, batch_id)) == [
        RejectedMessage(7, "a", REPEATED_MESSAGE_ID, "row 5 has it already"),
        RejectedMessage(9, "a", REPEATED_MESSAGE_ID, "row 5 has it already"),
    ]


def scores_of(engine: Engine, batch_id: int, expected: int) -> list[Any]:
    publish_batch(engine, batch_id, expected)
    return list(stream_scores(engine, DATE))


def test_ids_that_an_earlier_chunk_has_are_refused_and_the_rest_of_the_chunk_is_kept(engine: Engine) -> None:
    batch_id = begin(engine)
    commit_chunk(engine, batch_id, chunk(0, ["a", "b", "c"]))
    later = replace(chunk(1, ["c", "d", "a"]), probabilities=np.zeros(3), flagged=np.zeros(3, dtype=bool))
    assert commit_chunk(engine, batch_id, later)
    first = dict(zip("abc", chunk(0, ["a", "b", "c"]).probabilities.tolist(), strict=True))
    assert {row.message_id: row.spam_probability for row in scores_of(engine, batch_id, 6)} == {**first, "d": 0.0}
    assert [(one.row_number, one.message_id, one.reason) for one in stream_rejections(engine, batch_id)] == [
        (100, "c", REPEATED_MESSAGE_ID),
        (102, "a", REPEATED_MESSAGE_ID),
    ]
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    assert (batch.messages_read, batch.scored, batch.rejected) == (6, 4, 2)
    assert batch.checksum == recompute_checksum(engine, batch_id)


def test_more_repeated_ids_than_one_lookup_takes_are_all_found(engine: Engine) -> None:
    ids = [f"{one:05}" for one in range(2500)]
    batch_id = begin(engine)
    commit_chunk(engine, batch_id, chunk(0, ids))
    commit_chunk(engine, batch_id, chunk(30, [*ids, "new"]))
    assert counts(engine) == {"batch_chunks": 2, "spam_scores": 2501, "rejected_messages": 2500}


def test_chunks_with_the_same_ids_written_at_once_score_each_message_once(engine: Engine) -> None:
    batch_id = begin(engine)
    ids = [f"{one:03}" for one in range(100)]
    assert at_once(3, lambda at: commit_chunk(engine, batch_id, chunk(at, ids))) == [True] * 3
    assert scored_ids(engine, batch_id) == ids
    assert publish_batch(engine, batch_id, 300).rejected == 200


@pytest.mark.parametrize(
    ("message_id", "kept", "detail"),
    [
        ("x" * 256, "x" * 255, "256 characters, and 255 are kept"),
        ("a\0b", "a?b", "holds a NUL or half a surrogate pair"),
        ("a\ud800b", "a?b", "holds a NUL or half a surrogate pair"),
    ],
)
def test_an_id_that_not_every_database_keeps_is_refused_and_the_rest_of_the_chunk_is_kept(
    engine: Engine, message_id: str, kept: str, detail: str
) -> None:
    batch_id = begin(engine)
    commit_chunk(engine, batch_id, chunk(0, ["é" * 255, message_id, "😀"]))
    assert scored_ids(engine, batch_id) == sorted(["é" * 255, "😀"])
    assert list(stream_rejections(engine, batch_id)) == [RejectedMessage(1, kept, UNUSABLE_MESSAGE_ID, detail)]


def test_texts_of_refused_messages_are_made_to_fit(engine: Engine) -> None:
    batch_id = begin(engine)
    commit_chunk(engine, batch_id, chunk(0, [], [RejectedMessage(0, "i" * 300, "r" * 100, "a\0\ud800" * 1000)]))
    assert list(stream_rejections(engine, batch_id)) == [RejectedMessage(0, "i" * 255, "r" * 64, ("a??" * 1000)[:1000])]


def test_a_refused_row_that_is_there_already_is_an_error_and_not_dropped(engine: Engine) -> None:
    batch_id = begin(engine)
    commit_chunk(engine, batch_id, chunk(0, [], [RejectedMessage(0, "a", "empty text")]))
    with pytest.raises(sa.exc.IntegrityError):
        commit_chunk(engine, batch_id, chunk(1, ["b"], [RejectedMessage(0, "a", "empty text")]))
    assert find_committed_chunks(engine, batch_id) == {0}


@pytest.mark.parametrize("probability", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_probability_that_is_none_is_refused_before_it_is_written(probability: float) -> None:
    with pytest.raises(ArtifactError, match=r"chunk 3: expected probabilities from 0 to 1"):
        replace(chunk(3, ["a"]), probabilities=np.array([probability]))


def test_parts_of_a_chunk_that_differ_in_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"received \[1, 1, 2, 1\]"):
        replace(chunk(3, ["a"]), probabilities=np.array([0.1, 0.2]))


@ON_ONE_DATABASE
@given(
    parts=st.lists(
        st.lists(st.sampled_from(["a", "A", "a ", "á", "b", "c" * 300, "d\0", "😀"]), max_size=6), max_size=4
    ),
    data=st.data(),
)
def test_read_is_scored_and_rejected_whatever_is_repeated_and_each_id_has_the_score_of_its_first_row(
    engine: Engine, parts: list[list[str]], data: st.DataObject
) -> None:
    clear(engine)
    batch_id = begin(engine)
    for number, ids in enumerate(parts):
        commit_chunk(engine, batch_id, chunk(number, ids))
        if data.draw(st.booleans(), label="committed twice"):
            assert not commit_chunk(engine, batch_id, chunk(number, ids))
    batch = publish_batch(engine, batch_id, sum(map(len, parts)))
    sound = {one for ids in parts for one in ids if len(one) < 256 and "\0" not in one}
    assert scored_ids(engine, batch_id) == sorted(sound)
    assert (batch.messages_read, batch.scored) == (sum(map(len, parts)), len(sound))
    assert batch.checksum == recompute_checksum(engine, batch_id)


def clear(engine: Engine) -> None:
    with write_transaction(engine) as connection:
        for table in (batch_chunks, rejected_messages, spam_scores, score_batches):
            connection.execute(sa.delete(table))


# The checksum

ROWS = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**6), st.booleans()), max_size=30
)


def checksum(rows: Sequence[tuple[str, int, bool]]) -> int:
    ids, millionths, flags = zip(*rows, strict=True) if rows else ((), (), ())
    return checksum_rows(ids, np.array(millionths, dtype=np.float64) / 1e6, np.array(flags, dtype=bool))


@given(rows=ROWS, data=st.data())
def test_the_checksum_does_not_depend_on_order_nor_on_chunks(rows: list[Any], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    assert add_checksums([checksum(shuffled[:cut]), checksum(shuffled[cut:])]) == checksum(rows)


@given(rows=ROWS.filter(bool), data=st.data())
def test_the_checksum_tells_a_row_lost_doubled_or_changed(rows: list[Any], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    before, (message_id, millionths, flag), after = rows[:place], rows[place], rows[place + 1 :]
    others = [
        [],
        [rows[place], rows[place]],
        [(message_id + "x", millionths, flag)],
        [(message_id, (millionths + 1) % 10**6, flag)],
        [(message_id, millionths, not flag)],
    ]
    assert checksum(rows) not in [checksum([*before, *other, *after]) for other in others]


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([], "0000000000000000"),
        ([("a", 0, False)], "a4a0f1af7283ec91"),
        ([("a", 123456, True), ("é😀", 1000000, False)], "ea8d4c7de80c0e04"),
    ],
)
def test_the_checksum_is_what_it_was_on_other_machines_and_in_other_years(rows: list[Any], shown: str) -> None:
    assert format_checksum(checksum(rows)) == shown


def test_a_row_changed_in_the_table_changes_the_checksum_recomputed(engine: Engine) -> None:
    batch_id = published(engine)
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    assert recompute_checksum(engine, batch_id) == batch.checksum
    with write_transaction(engine) as connection:
        connection.execute(sa.update(spam_scores).where(spam_scores.c.message_id == "b").values(spam_probability=0.123))
    assert recompute_checksum(engine, batch_id) != batch.checksum


# Publishing


def test_publishing_makes_a_batch_the_one_that_readers_see_and_supersedes_the_one_before(engine: Engine) -> None:
    first = published(engine, ["a", "b"])
    second = published(engine, ["b", "c"], recipe="f" * 16, model_version=4)
    assert states(engine) == {first: "superseded", second: "published"}
    assert [
        (row.message_id, row.batch_id, row.model_version) for row in stream_scores(engine, DATE, order="message_id")
    ] == [
        ("b", second, 4),
        ("c", second, 4),
    ]
    for recipe, exactly, done in [(PLAN.recipe, False, {DATE}), ("f" * 16, True, {DATE}), (PLAN.recipe, True, set())]:
        assert find_completed_dates(engine, {DATE: recipe, DATE + datetime.timedelta(days=1): recipe}, exactly) == done


def test_publishing_again_changes_nothing(engine: Engine) -> None:
    batch_id = published(engine)
    before = find_published_batch(engine, DATE)
    assert publish_batch(engine, batch_id, 3) == before


def test_a_batch_is_published_with_its_receipt_or_not_at_all(engine: Engine) -> None:
    batch_id = begin(engine)
    commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))

    def full(_: BatchRow) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        publish_batch(engine, batch_id, 2, full)
    assert find_published_batch(engine, DATE) is None
    receipts: list[BatchRow] = []
    publish_batch(engine, batch_id, 2, receipts.append)
    assert receipts == [find_published_batch(engine, DATE)]


def test_a_batch_published_by_several_at_once_is_published_once(engine: Engine) -> None:
    batch_id = begin(engine)
    commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))
    found = at_once(3, lambda _: publish_batch(engine, batch_id, 2))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("expected_rows", "damage", "said"),
    [
        (4, None, "messages: expected 4, found 3"),
        (2, None, "messages: expected 2, found 3"),
        (3, sa.delete(spam_scores).where(spam_scores.c.message_id == "a"), "rows scored: expected 2, found 1"),
        (3, sa.delete(rejected_messages), "rows rejected: expected 1, found 0"),
        (3, sa.update(spam_scores).values(flagged=True), "rows flagged: expected 1, found 2"),
        (3, sa.delete(batch_chunks), "messages: expected 3, found 0; rows scored: expected 0, found 2"),
    ],
)
def test_a_batch_that_is_not_whole_is_not_published(engine: Engine, expected_rows: int, damage: Any, said: str) -> None:
    before = published(engine, ["z"])
    batch_id = begin(engine, recipe="f" * 16)
    one = replace(chunk(0, ["a", "b"], [RejectedMessage(2, "c", "empty text")]), flagged=np.array([True, False]))
    commit_chunk(engine, batch_id, one)
    if damage is not None:
        table = damage.table
        with write_transaction(engine) as connection:
            connection.execute(damage.where(table.c.batch_id == batch_id))
    with pytest.raises(DatabaseError) as refused:
        publish_batch(engine, batch_id, expected_rows)
    assert f"batch {batch_id} of 2026-01-31" in str(refused.value)
    assert said in str(refused.value)
    assert states(engine) == {before: "published", batch_id: "running"}


def test_a_reader_never_sees_a_mix_nor_nothing_while_batches_are_published(engine: Engine) -> None:
    seen, stop = [], threading.Event()
    wanted = (
        sa.select(published_scores.c.batch_id, sa.func.count())
        .where(published_scores.c.batch_date == DATE)
        .group_by(published_scores.c.batch_id)
    )

    def poll() -> None:
        while not stop.is_set():
            with read_transaction(engine) as connection:
                seen.append([tuple(row) for row in connection.execute(wanted)])

    made = [published(engine, [str(one) for one in range(300)])]
    reader = threading.Thread(target=poll)
    reader.start()
    try:
        made += [published(engine, [str(one) for one in range(300)], recipe=f"{night:016}") for night in range(8)]
    finally:
        stop.set()
        reader.join(30)
    assert all(one in [[(batch_id, 300)] for batch_id in made] for one in seen)
    assert len({one[0][0] for one in seen}) > 1


# Flipping


def test_a_batch_withdrawn_is_seen_by_nobody_and_its_date_can_be_run_again(engine: Engine) -> None:
    batch_id = published(engine)
    assert withdraw_batch(engine, batch_id).state == "withdrawn"
    assert withdraw_batch(engine, batch_id).state == "withdrawn"
    assert list(stream_scores(engine, DATE)) == []
    assert find_completed_dates(engine, {DATE: PLAN.recipe}) == set()
    assert not start_batch(engine, PLAN).resumed


@pytest.mark.parametrize("withdrawn", [False, True])
def test_going_back_to_the_batch_before_brings_its_scores_back(engine: Engine, withdrawn: bool) -> None:
    first = published(engine, ["a"])
    was = find_published_batch(engine, DATE)
    second = published(engine, ["b"], recipe="f" * 16)
    if withdrawn:
        withdraw_batch(engine, second)
    assert restore_batch(engine, first) == was
    assert [row.message_id for row in stream_scores(engine, DATE)] == ["a"]
    assert states(engine) == {first: "published", second: "withdrawn" if withdrawn else "superseded"}
    assert restore_batch(engine, second).state == "published"
    assert states(engine) == {first: "superseded", second: "published"}


@pytest.mark.parametrize(
    ("state", "flip", "rule"),
    [
        ("withdrawn", lambda engine, one: publish_batch(engine, one, 1), "only a running batch can be published"),
        ("superseded", lambda engine, one: publish_batch(engine, one, 1), "only a running batch can be published"),
        ("superseded", withdraw_batch, "only a running or published batch can be withdrawn"),
        ("running", restore_batch, "only a batch that was published once can be restored"),
        ("never published", restore_batch, "only a batch that was published once can be restored"),
    ],
)
def test_a_flip_that_makes_no_sense_is_an_error_and_changes_nothing(
    engine: Engine, state: str, flip: Callable[..., Any], rule: str
) -> None:
    batch_id = begin(engine)
    if state in ("withdrawn", "superseded"):
        commit_chunk(engine, batch_id, chunk(0, ["a"]))
        publish_batch(engine, batch_id, 1)
    if state in ("withdrawn", "never published"):
        withdraw_batch(engine, batch_id)
    if state == "superseded":
        published(engine, recipe="f" * 16)
    before = states(engine)
    with pytest.raises(DatabaseError, match=rule):
        flip(engine, batch_id)
    assert states(engine) == before


@pytest.mark.parametrize("flip", [lambda engine, one: publish_batch(engine, one, 1), withdraw_batch, restore_batch])
def test_a_batch_that_is_not_there_cannot_be_flipped(engine: Engine, flip: Callable[..., Any]) -> None:
    with pytest.raises(DatabaseError, match="batch 999 is not there"):
        flip(engine, 999)


# Asking


def test_a_database_without_tables_has_nothing(database_url: str) -> None:
    engine = connect(DatabaseSettings(url=database_url))
    assert find_published_batch(engine, DATE) is None
    assert list_batches(engine) == []
    assert find_completed_dates(engine, {DATE: PLAN.recipe}) == set()
    assert find_published_dates(engine, [DATE]) == set()
    assert list(stream_scores(engine, DATE)) == []


def test_the_dates_that_are_published_are_found_among_many(engine: Engine) -> None:
    days = [DATE + datetime.timedelta(days=day) for day in range(4)]
    for day in days[:2]:
        published(engine, batch_date=day)
    begin(engine, batch_date=days[2])
    assert find_published_dates(engine, days) == set(days[:2])
    assert find_published_dates(engine, []) == set()
    assert [row.batch_date for row in list_batches(engine, limit=2)] == [days[2], days[1]]


def test_scores_come_by_suspicion_or_by_id_all_or_flagged_or_some(engine: Engine) -> None:
    published(engine, [f"m{one}" for one in range(20)])
    by_id = list(stream_scores(engine, DATE, order="message_id"))
    assert [row.message_id for row in by_id] == sorted(row.message_id for row in by_id)
    assert len(by_id) == 20
    by_suspicion = sorted(by_id, key=lambda row: (-row.spam_probability, row.message_id))
    assert list(stream_scores(engine, DATE)) == by_suspicion
    assert list(stream_scores(engine, DATE, limit=3)) == by_suspicion[:3]
    flagged = list(stream_scores(engine, DATE, flagged_only=True))
    assert flagged == [row for row in by_suspicion if row.flagged]
    assert 0 < len(flagged) < 20
    assert by_id[0].scored_at.tzinfo is datetime.UTC


def test_a_reader_that_stops_early_leaves_the_database_usable(engine: Engine) -> None:
    published(engine, [f"m{one}" for one in range(50)])
    stream = stream_scores(engine, DATE)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    published(engine, recipe="f" * 16)


def test_times_are_noted_and_what_is_not_given_stays(engine: Engine) -> None:
    batch_id = published(engine)
    record_times(engine, batch_id, total=10.5, text=1.25)
    record_times(engine, batch_id, network=2.0, write=0.0)
    record_times(engine, batch_id)
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    assert (batch.seconds_total, batch.seconds_text, batch.seconds_network, batch.seconds_write) == (
        10.5,
        1.25,
        2.0,
        0.0,
    )
