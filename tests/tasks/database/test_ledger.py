"""Tests that a batch is written exactly once on each database, despite repeats, kills and concurrent writers."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from models.errors import ArtifactError, DatabaseError
from tasks.database.batches import (
    BatchRow,
    find_completed_dates,
    find_latest_published_batch,
    find_never_published_dates,
    find_published_batch,
    find_published_dates,
    list_batches,
    recompute_checksum,
    stream_rejections,
    stream_scores,
)
from tasks.database.chunks import (
    REPEATED_MESSAGE_ID,
    RejectedMessage,
    ScoredChunk,
    add_checksums,
    checksum_rows,
    find_rejections,
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
from tasks.sources.snapshots import (
    SNAPSHOT_FILE,
    SnapshotChunk,
    SnapshotRow,
    count_snapshot_rows,
    read_snapshot,
    write_snapshot,
)

DATE = datetime.date(2026, 1, 31)
PLAN = BatchPlan(DATE, "0123456789abcdef", "spam_ham", 3, "ckpt-500", "snapshot", 0.5, "cpu:0", 4)

ON_ONE_DATABASE = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chunk(number: int, ids: Sequence[str], rejected: Sequence[RejectedMessage] = (), rows: Any = None) -> ScoredChunk:
    """Returns a chunk of identifiers. The probability of each is derived from its text."""
    probabilities = np.array([round(random.Random(ascii(key)).random(), 6) for key in ids], dtype=np.float64)
    row_numbers = np.arange(len(ids)) + 100 * number if rows is None else np.array(rows)
    flagged = probabilities >= 0.5
    return ScoredChunk(number, 100 * number, list(ids), row_numbers, probabilities, flagged, rejected, 0.25)


def start(engine: Engine, **changes: Any) -> int:
    return start_batch(engine, replace(PLAN, **changes)).batch_id


def publish(engine: Engine, ids: Sequence[str] = ("a", "b", "c"), **changes: Any) -> int:
    batch_id = start(engine, **changes)
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


# Starting


def test_a_batch_started_again_with_the_same_plan_is_resumed(engine: Engine) -> None:
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
def test_a_batch_started_with_another_plan_replaces_the_running_one(engine: Engine, change: dict[str, Any]) -> None:
    abandoned = start(engine)
    other = start_batch(engine, replace(PLAN, **change))
    assert not other.resumed
    assert states(engine) == {abandoned: "withdrawn", other.batch_id: "running"}
    assert {row.batch_id: row.ended_at is not None for row in list_batches(engine)} == {
        abandoned: True,
        other.batch_id: False,
    }


def test_a_batch_stores_its_plan(engine: Engine) -> None:
    before = datetime.datetime.now(datetime.UTC)
    start(engine)
    (row,) = list_batches(engine)
    assert all(getattr(row, name) == value for name, value in vars(PLAN).items())
    assert before <= row.started_at <= datetime.datetime.now(datetime.UTC)
    assert (row.state, row.published_at, row.ended_at, row.messages_read, row.checksum) == ("running", *[None] * 4)


def test_batches_of_other_dates_are_not_changed(engine: Engine) -> None:
    first = start(engine)
    other = start(engine, batch_date=DATE + datetime.timedelta(days=1), recipe="f" * 16)
    assert states(engine) == {first: "running", other: "running"}


def test_concurrent_writers_start_the_same_batch(engine: Engine) -> None:
    for day in range(5):
        plan = replace(PLAN, batch_date=DATE + datetime.timedelta(days=day))
        started = run_at_once(4, lambda _, plan=plan: start_batch(engine, plan))
        assert len({batch.batch_id for batch in started}) == 1
        assert [batch.resumed for batch in started].count(False) == 1


def run_at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Runs a function in threads that start together. An error in one thread is raised."""
    ready = threading.Barrier(count, timeout=30)
    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(lambda index: (ready.wait(), work(index))[1], index) for index in range(count)]
        return [future.result(60) for future in futures]


# Committing


def test_a_chunk_writes_its_scores_its_rejected_messages_and_its_ledger_row(engine: Engine) -> None:
    batch_id = start(engine)
    scored_chunk = chunk(
        2, ["b", "a", "B", "a "], [RejectedMessage(204, None, "empty text"), RejectedMessage(205, "z", "x", "y")]
    )
    assert commit_chunk(engine, batch_id, scored_chunk)
    with read_transaction(engine) as connection:
        (row,) = connection.execute(sa.select(batch_chunks)).all()
        stored = connection.execute(sa.select(spam_scores).order_by(spam_scores.c.message_id)).all()
    assert (row.chunk_number, row.first_row, row.messages_read, row.scored, row.rejected) == (2, 200, 6, 4, 2)
    assert (row.flagged, row.checksum, row.seconds) == (
        int(scored_chunk.flagged.sum()),
        format_checksum(scored_chunk.checksum()),
        0.25,
    )
    assert stored == sorted(
        (batch_id, message_id, float(probability), bool(flag))
        for message_id, probability, flag in zip(
            scored_chunk.message_ids, scored_chunk.probabilities, scored_chunk.flagged, strict=True
        )
    )
    assert list(stream_rejections(engine, batch_id)) == list(scored_chunk.rejected)


@pytest.mark.parametrize("ids", [[], ["a"]])
@pytest.mark.parametrize("rejected", [[], [RejectedMessage(7, "r", "empty text")]])
def test_a_chunk_can_have_scores_rejected_messages_both_or_neither(
    engine: Engine, ids: list[str], rejected: list[RejectedMessage]
) -> None:
    batch_id = start(engine)
    assert commit_chunk(engine, batch_id, chunk(0, ids, rejected))
    assert counts(engine) == {"batch_chunks": 1, "spam_scores": len(ids), "rejected_messages": len(rejected)}
    assert publish_batch(engine, batch_id, len(ids) + len(rejected)).checksum == recompute_checksum(engine, batch_id)


def test_a_chunk_committed_again_changes_nothing(engine: Engine) -> None:
    batch_id = start(engine)
    assert commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))
    assert not commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))
    assert not commit_chunk(engine, batch_id, chunk(0, ["other", "ids"]))
    assert scored_ids(engine, batch_id) == ["a", "b"]


def test_a_copy_of_a_chunk_after_publication_is_ignored(engine: Engine) -> None:
    batch_id = publish(engine)
    assert not commit_chunk(engine, batch_id, chunk(0, ["a", "b", "c"]))


@pytest.mark.parametrize(
    "take_over",
    [lambda engine, batch_id: withdraw_batch(engine, batch_id), lambda engine, _: start(engine, recipe="f")],
)
def test_a_chunk_for_a_replaced_batch_is_an_error(engine: Engine, take_over: Callable[..., Any]) -> None:
    batch_id = start(engine)
    take_over(engine, batch_id)
    with pytest.raises(DatabaseError, match=rf"batch {batch_id} is withdrawn \(of 2026-01-31\).*run the date again"):
        commit_chunk(engine, batch_id, chunk(0, ["a"]))
    assert counts(engine)["batch_chunks"] == 0


def test_a_chunk_for_a_missing_batch_is_an_error(engine: Engine) -> None:
    with pytest.raises(DatabaseError, match="batch 999 is missing"):
        commit_chunk(engine, 999, chunk(0, ["a"]))


def test_concurrent_writers_commit_each_chunk_once(engine: Engine) -> None:
    batch_id = start(engine)
    chunks = [chunk(number, [f"{number}-{row}" for row in range(50)]) for number in range(6)]
    results = run_at_once(
        3, lambda shift: [commit_chunk(engine, batch_id, part) for part in chunks[shift:] + chunks[:shift]]
    )
    unshifted = [written[-shift:] + written[:-shift] for shift, written in enumerate(results)]
    assert [sum(writes) for writes in zip(*unshifted, strict=True)] == [1] * 6
    assert publish_batch(engine, batch_id, 300).checksum == recompute_checksum(engine, batch_id)


def test_concurrent_processes_commit_each_chunk_once(engine: Engine) -> None:
    script = PREPARE + (
        "for number in range(8):\n"
        "    print(commit_chunk(engine, batch_id, chunk(number, [f'{number}-{row}' for row in range(200)])))\n"
    )
    writers = [start_script(script, engine) for _ in range(2)]
    outputs = [writer.communicate(timeout=120)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [sorted(pair) for pair in zip(*outputs, strict=True)] == [["False", "True"]] * 8
    (batch,) = list_batches(engine)
    assert publish_batch(engine, batch.batch_id, 1600).scored == 1600


@pytest.mark.parametrize("moment", ["before the scores", "during the scores", "before the commit"])
def test_a_killed_writer_leaves_nothing_of_its_chunk_which_can_be_written_again(engine: Engine, moment: str) -> None:
    script = PREPARE + (
        "import sys, time, tasks.database.ledger as ledger\n"
        "write = ledger.insert_rows\n"
        "def stop():\n"
        "    print('stopped', flush=True); time.sleep(60)\n"
        "def insert_rows(connection, table, columns):\n"
        "    if sys.argv[2] == 'before the scores': stop()\n"
        "    first_rows = {name: values[:50] for name, values in columns.items()}\n"
        "    if sys.argv[2] == 'during the scores': write(connection, table, first_rows); stop()\n"
        "    write(connection, table, columns)\n"
        "    if table.name == 'rejected_messages': stop()\n"
        "commit_chunk(engine, batch_id, chunk(0, ['a', 'b']))\n"
        "ledger.insert_rows = insert_rows\n"
        "commit_chunk(engine, batch_id, chunk(1, [str(number) for number in range(100)]))\n"
    )
    writer = start_script(script, engine, moment)
    assert writer.stdout
    assert writer.stdout.readline() == "stopped\n"
    writer.kill()
    writer.communicate(timeout=30)
    assert counts(engine) == {"batch_chunks": 1, "spam_scores": 2, "rejected_messages": 0}
    batch = start_batch(engine, PLAN)
    assert batch.resumed
    assert commit_chunk(engine, batch.batch_id, chunk(1, [str(number) for number in range(100)]))
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


def start_script(script: str, engine: Engine, *arguments: str) -> subprocess.Popen[str]:
    url = engine.url.render_as_string(hide_password=False)
    return subprocess.Popen([sys.executable, "-c", script, url, *arguments], stdout=subprocess.PIPE, text=True)


# Messages that a chunk rejects


def test_texts_of_rejected_messages_are_truncated(engine: Engine) -> None:
    batch_id = start(engine)
    commit_chunk(engine, batch_id, chunk(0, [], [RejectedMessage(0, "i" * 300, "r" * 100, "a\0\ud800" * 1000)]))
    assert list(stream_rejections(engine, batch_id)) == [RejectedMessage(0, "i" * 255, "r" * 64, ("a??" * 1000)[:1000])]


def test_a_repeated_row_number_of_a_rejected_message_is_an_error(engine: Engine) -> None:
    batch_id = start(engine)
    commit_chunk(engine, batch_id, chunk(0, [], [RejectedMessage(0, "a", "empty text")]))
    with pytest.raises(sa.exc.IntegrityError):
        commit_chunk(engine, batch_id, chunk(1, ["b"], [RejectedMessage(0, "a", "empty text")]))
    assert find_committed_chunks(engine, batch_id) == {0}


@pytest.mark.parametrize("probability", [float("nan"), float("inf"), -0.1, 1.1])
def test_an_invalid_probability_is_rejected_before_it_is_written(probability: float) -> None:
    with pytest.raises(ArtifactError, match=r"chunk 3: expected probabilities from 0 to 1"):
        replace(chunk(3, ["a"]), probabilities=np.array([probability]))


def test_arrays_of_different_lengths_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"received lengths \[1, 1, 2, 1\]"):
        replace(chunk(3, ["a"]), probabilities=np.array([0.1, 0.2]))


ID_SAMPLES = ["a", "A", "a ", "á", "a\u0301", "b", "c" * 255, "c" * 300, "d\0", "😀", "", None]
SNAPSHOT_ROWS = st.lists(
    st.builds(
        SnapshotRow,
        st.just(1),
        st.sampled_from(ID_SAMPLES),
        st.sampled_from(["x", "x", "x", " "]),
        st.sampled_from([None, None, None, "bad row"]),
    ),
    min_size=10,
    max_size=40,
)


def score_rows(chunk: SnapshotChunk) -> ScoredChunk:
    """Scores a chunk of a snapshot: the probability of a row tells its number."""
    rejected = find_rejections(chunk)
    scored = np.delete(np.arange(len(chunk)), list(rejected))
    ids, rows = chunk.message_ids.take(pa.array(scored)).to_pylist(), chunk.row_numbers[scored]
    rejections = list(rejected.values())
    return ScoredChunk(chunk.chunk_number, chunk.first_row, ids, rows, rows / 1e6, rows >= 15, rejections, 0.25)


def write_batch(engine: Engine, snapshot: Path, chunk_size: int, orders: Sequence[Sequence[int]]) -> Any:
    """Writes a batch with as many writers at once as there are orders of chunks; returns its checksum and all rows."""
    clear(engine)
    batch_id = start(engine, chunk_size=chunk_size)
    chunks = [score_rows(part) for part in read_snapshot(snapshot, chunk_size)]
    by_position = [[chunks[number] for number in order if number < len(chunks)] for order in orders]
    written = run_at_once(
        len(orders), lambda writer: [commit_chunk(engine, batch_id, part) for part in by_position[writer]]
    )
    assert sum(map(sum, written)) == len(chunks)
    batch = publish_batch(engine, batch_id, count_snapshot_rows(snapshot))
    assert batch.checksum == recompute_checksum(engine, batch_id)
    scored = [(row.message_id, row.spam_probability) for row in stream_scores(engine, DATE, order="message_id")]
    return batch.checksum, scored, list(stream_rejections(engine, batch_id))


def assert_first_rows_are_scored(rows: Sequence[SnapshotRow], scored: Sequence[tuple[str, float]]) -> None:
    first_rows: dict[str, float] = {}
    for number, row in enumerate(rows, 1):
        message_id = row.message_id or ""
        if row.fault is None and (row.text or "").strip() and 0 < len(message_id) <= 255 and "\0" not in message_id:
            first_rows.setdefault(message_id, number / 1e6)
    assert list(scored) == sorted(first_rows.items())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@ON_ONE_DATABASE
@given(rows=SNAPSHOT_ROWS, sizes=st.lists(st.integers(1, 10), min_size=2, max_size=2), data=st.data())
def test_the_rows_of_a_batch_depend_neither_on_the_chunks_nor_on_their_order_nor_on_the_writers(
    engine: Engine, tmp_path: Path, rows: list[SnapshotRow], sizes: list[int], data: st.DataObject
) -> None:
    path = tmp_path / SNAPSHOT_FILE
    write_snapshot(rows, path)
    one, two = sizes
    orders = st.permutations(range(-(-len(rows) // two)))
    by_one = write_batch(engine, path, one, [range(len(rows))])
    assert by_one == write_batch(engine, path, two, [data.draw(orders), data.draw(orders)])
    assert_first_rows_are_scored(rows, by_one[1])


@pytest.mark.parametrize(
    "orders",
    [[range(10)], [range(9, -1, -1)], [range(10), range(9, -1, -1)], [[5, *range(10)], [9, 0, 5, *range(1, 9)]]],
    ids=["forwards", "backwards", "two writers", "two writers and a chunk twice"],
)
def test_thousands_of_repeated_identifiers_give_one_checksum_in_any_order(
    engine: Engine, tmp_path: Path, orders: Sequence[Sequence[int]]
) -> None:
    rows = [SnapshotRow(number, f"m{number % 100}", "x", None) for number in range(1, 1001)]
    rows += [SnapshotRow(number, "m0", "x", None) for number in range(3000)]
    write_snapshot(rows, tmp_path / SNAPSHOT_FILE)
    checksum, scored, rejected = write_batch(engine, tmp_path / SNAPSHOT_FILE, 400, orders)
    assert checksum == "0eabc90aa65c70aa"
    assert_first_rows_are_scored(rows, scored)
    assert rejected[0] == RejectedMessage(101, "m1", REPEATED_MESSAGE_ID, "row 1 has it already")
    assert rejected[-1] == RejectedMessage(4000, "m0", REPEATED_MESSAGE_ID, "row 100 has it already")
    assert len(rejected) == 3900


def test_an_identifier_that_another_chunk_has_is_an_error_and_nothing_of_the_chunk_is_written(engine: Engine) -> None:
    batch_id = start(engine)
    commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))
    with pytest.raises(sa.exc.IntegrityError):
        commit_chunk(engine, batch_id, chunk(1, ["c", "b"]))
    assert scored_ids(engine, batch_id) == ["a", "b"]


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
def test_the_checksum_is_independent_of_order_and_chunks(rows: list[Any], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    assert add_checksums([checksum(shuffled[:cut]), checksum(shuffled[cut:])]) == checksum(rows)


@given(rows=ROWS.filter(bool), data=st.data())
def test_the_checksum_detects_a_lost_duplicated_or_changed_row(rows: list[Any], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    before, (message_id, millionths, flag), after = rows[:index], rows[index], rows[index + 1 :]
    replacements = [
        [],
        [rows[index], rows[index]],
        [(message_id + "x", millionths, flag)],
        [(message_id, (millionths + 1) % 10**6, flag)],
        [(message_id, millionths, not flag)],
    ]
    assert checksum(rows) not in [checksum([*before, *replacement, *after]) for replacement in replacements]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "0000000000000000"),
        ([("a", 0, False)], "a4a0f1af7283ec91"),
        ([("a", 123456, True), ("é😀", 1000000, False)], "ea8d4c7de80c0e04"),
    ],
)
def test_the_checksum_is_stable_across_machines_and_versions(rows: list[Any], expected: str) -> None:
    assert format_checksum(checksum(rows)) == expected


def test_a_changed_row_changes_the_recomputed_checksum(engine: Engine) -> None:
    batch_id = publish(engine)
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    assert recompute_checksum(engine, batch_id) == batch.checksum
    with write_transaction(engine) as connection:
        connection.execute(sa.update(spam_scores).where(spam_scores.c.message_id == "b").values(spam_probability=0.123))
    assert recompute_checksum(engine, batch_id) != batch.checksum


# Publishing


def test_publishing_shows_a_batch_to_readers_and_supersedes_the_previous_one(engine: Engine) -> None:
    first = publish(engine, ["a", "b"])
    second = publish(engine, ["b", "c"], recipe="f" * 16, model_version=4)
    assert states(engine) == {first: "superseded", second: "published"}
    assert [
        (row.message_id, row.batch_id, row.model_version) for row in stream_scores(engine, DATE, order="message_id")
    ] == [
        ("b", second, 4),
        ("c", second, 4),
    ]
    for recipe, exactly, expected in [
        (PLAN.recipe, False, {DATE}),
        ("f" * 16, True, {DATE}),
        (PLAN.recipe, True, set()),
    ]:
        assert (
            find_completed_dates(engine, {DATE: recipe, DATE + datetime.timedelta(days=1): recipe}, exactly) == expected
        )


def test_publishing_again_changes_nothing(engine: Engine) -> None:
    batch_id = publish(engine)
    before = find_published_batch(engine, DATE)
    assert publish_batch(engine, batch_id, 3) == before


def test_a_batch_is_not_published_if_its_callback_fails(engine: Engine) -> None:
    batch_id = start(engine)
    commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))

    def fail(_: BatchRow) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        publish_batch(engine, batch_id, 2, fail)
    assert find_published_batch(engine, DATE) is None
    receipts: list[BatchRow] = []
    publish_batch(engine, batch_id, 2, receipts.append)
    assert receipts == [find_published_batch(engine, DATE)]


def test_concurrent_calls_publish_a_batch_once(engine: Engine) -> None:
    batch_id = start(engine)
    commit_chunk(engine, batch_id, chunk(0, ["a", "b"]))
    batches = run_at_once(3, lambda _: publish_batch(engine, batch_id, 2))
    assert batches[0] == batches[1] == batches[2]


@pytest.mark.parametrize(
    ("expected_rows", "damage", "difference"),
    [
        (4, None, "messages: expected 4, found 3"),
        (2, None, "messages: expected 2, found 3"),
        (3, sa.delete(spam_scores).where(spam_scores.c.message_id == "a"), "rows scored: expected 2, found 1"),
        (3, sa.delete(rejected_messages), "rows rejected: expected 1, found 0"),
        (3, sa.update(spam_scores).values(flagged=True), "rows flagged: expected 1, found 2"),
        (3, sa.delete(batch_chunks), "messages: expected 3, found 0; rows scored: expected 0, found 2"),
    ],
)
def test_an_incomplete_batch_is_not_published(engine: Engine, expected_rows: int, damage: Any, difference: str) -> None:
    before = publish(engine, ["z"])
    batch_id = start(engine, recipe="f" * 16)
    whole = chunk(0, ["a", "b"], [RejectedMessage(2, "c", "empty text")])
    commit_chunk(engine, batch_id, replace(whole, flagged=np.array([True, False])))
    if damage is not None:
        table = damage.table
        with write_transaction(engine) as connection:
            connection.execute(damage.where(table.c.batch_id == batch_id))
    with pytest.raises(DatabaseError) as caught:
        publish_batch(engine, batch_id, expected_rows)
    assert f"batch {batch_id} of 2026-01-31" in str(caught.value)
    assert difference in str(caught.value)
    assert states(engine) == {before: "published", batch_id: "running"}


def test_a_reader_always_sees_exactly_one_batch_while_batches_are_published(engine: Engine) -> None:
    seen, stop = [], threading.Event()
    statement = (
        sa.select(published_scores.c.batch_id, sa.func.count())
        .where(published_scores.c.batch_date == DATE)
        .group_by(published_scores.c.batch_id)
    )

    def poll() -> None:
        while not stop.is_set():
            with read_transaction(engine) as connection:
                seen.append([tuple(row) for row in connection.execute(statement)])

    batch_ids = [publish(engine, [str(number) for number in range(300)])]
    reader = threading.Thread(target=poll)
    reader.start()
    try:
        batch_ids += [
            publish(engine, [str(number) for number in range(300)], recipe=f"{night:016}") for night in range(8)
        ]
    finally:
        stop.set()
        reader.join(30)
    assert all(rows in [[(batch_id, 300)] for batch_id in batch_ids] for rows in seen)
    assert len({rows[0][0] for rows in seen}) > 1


# Withdrawing and restoring


def test_a_withdrawn_batch_is_hidden_and_its_date_can_be_run_again(engine: Engine) -> None:
    batch_id = publish(engine)
    assert withdraw_batch(engine, batch_id).state == "withdrawn"
    assert withdraw_batch(engine, batch_id).state == "withdrawn"
    assert list(stream_scores(engine, DATE)) == []
    assert find_completed_dates(engine, {DATE: PLAN.recipe}) == set()
    assert not start_batch(engine, PLAN).resumed


@pytest.mark.parametrize("withdrawn", [False, True])
def test_restoring_a_batch_publishes_its_scores_again(engine: Engine, withdrawn: bool) -> None:
    first = publish(engine, ["a"])
    before = find_published_batch(engine, DATE)
    second = publish(engine, ["b"], recipe="f" * 16)
    if withdrawn:
        withdraw_batch(engine, second)
    assert restore_batch(engine, first) == before
    assert [row.message_id for row in stream_scores(engine, DATE)] == ["a"]
    assert states(engine) == {first: "published", second: "withdrawn" if withdrawn else "superseded"}
    assert restore_batch(engine, second).state == "published"
    assert states(engine) == {first: "superseded", second: "published"}


@pytest.mark.parametrize(
    ("state", "change", "rule"),
    [
        (
            "withdrawn",
            lambda engine, batch_id: publish_batch(engine, batch_id, 1),
            "only a running batch can be published",
        ),
        (
            "superseded",
            lambda engine, batch_id: publish_batch(engine, batch_id, 1),
            "only a running batch can be published",
        ),
        ("superseded", withdraw_batch, "only a running or published batch can be withdrawn"),
        ("running", restore_batch, "only a batch that was published once can be restored"),
        ("never published", restore_batch, "only a batch that was published once can be restored"),
    ],
)
def test_an_invalid_state_change_is_an_error_and_changes_nothing(
    engine: Engine, state: str, change: Callable[..., Any], rule: str
) -> None:
    batch_id = start(engine)
    if state in ("withdrawn", "superseded"):
        commit_chunk(engine, batch_id, chunk(0, ["a"]))
        publish_batch(engine, batch_id, 1)
    if state in ("withdrawn", "never published"):
        withdraw_batch(engine, batch_id)
    if state == "superseded":
        publish(engine, recipe="f" * 16)
    before = states(engine)
    with pytest.raises(DatabaseError, match=rule):
        change(engine, batch_id)
    assert states(engine) == before


@pytest.mark.parametrize(
    "change", [lambda engine, batch_id: publish_batch(engine, batch_id, 1), withdraw_batch, restore_batch]
)
def test_the_state_of_a_missing_batch_cannot_be_changed(engine: Engine, change: Callable[..., Any]) -> None:
    with pytest.raises(DatabaseError, match="batch 999 is missing"):
        change(engine, 999)


# Reading


def test_a_database_without_tables_has_no_batches(database_url: str) -> None:
    engine = connect(DatabaseSettings(url=database_url))
    assert find_published_batch(engine, DATE) is None
    assert list_batches(engine) == []
    assert find_completed_dates(engine, {DATE: PLAN.recipe}) == set()
    assert find_published_dates(engine, [DATE]) == set()
    assert list(stream_scores(engine, DATE)) == []


def test_published_dates_are_found_among_others(engine: Engine) -> None:
    days = [DATE + datetime.timedelta(days=day) for day in range(4)]
    for day in days[:2]:
        publish(engine, batch_date=day)
    start(engine, batch_date=days[2])
    assert find_published_dates(engine, days) == set(days[:2])
    assert find_published_dates(engine, []) == set()
    assert [row.batch_date for row in list_batches(engine, limit=2)] == [days[2], days[1]]


def test_scores_are_ordered_filtered_and_limited(engine: Engine) -> None:
    publish(engine, [f"m{number}" for number in range(20)])
    by_id = list(stream_scores(engine, DATE, order="message_id"))
    assert [row.message_id for row in by_id] == sorted(row.message_id for row in by_id)
    assert len(by_id) == 20
    by_probability = sorted(by_id, key=lambda row: (-row.spam_probability, row.message_id))
    assert list(stream_scores(engine, DATE)) == by_probability
    assert list(stream_scores(engine, DATE, limit=3)) == by_probability[:3]
    flagged = list(stream_scores(engine, DATE, flagged_only=True))
    assert flagged == [row for row in by_probability if row.flagged]
    assert 0 < len(flagged) < 20
    assert by_id[0].scored_at.tzinfo is datetime.UTC


def test_a_stream_closed_early_leaves_the_database_usable(engine: Engine) -> None:
    publish(engine, [f"m{number}" for number in range(50)])
    stream = stream_scores(engine, DATE)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    publish(engine, recipe="f" * 16)


def test_durations_are_stored_and_omitted_ones_stay_unchanged(engine: Engine) -> None:
    batch_id = publish(engine)
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


# Provisional batches


def test_a_final_batch_supersedes_the_provisional_one_of_its_date(engine: Engine) -> None:
    publish(engine, recipe="early", provisional=True)
    assert find_published_batch(engine, DATE).provisional is True  # type: ignore[union-attr]
    publish(engine)
    assert find_published_batch(engine, DATE).provisional is False  # type: ignore[union-attr]
    assert states(engine) == {1: "superseded", 2: "published"}


def test_a_date_with_only_provisional_batches_counts_as_never_published(engine: Engine) -> None:
    days = [DATE + datetime.timedelta(days=number) for number in range(3)]
    publish(engine, batch_date=days[0])
    publish(engine, batch_date=days[1], provisional=True)
    assert find_never_published_dates(engine, days) == days[1:]
    withdraw_batch(engine, publish(engine, batch_date=days[1], recipe="final"))
    assert find_never_published_dates(engine, days) == days[2:]


def test_the_latest_batch_can_be_searched_among_final_ones(engine: Engine) -> None:
    final = publish(engine)
    early = publish(engine, batch_date=DATE + datetime.timedelta(days=1), provisional=True)
    assert find_latest_published_batch(engine).batch_id == early  # type: ignore[union-attr]
    assert find_latest_published_batch(engine, final=True).batch_id == final  # type: ignore[union-attr]
