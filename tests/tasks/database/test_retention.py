"""Tests that retention deletes old batches in bounded steps and never published rows.

Also tests that readers see a batch completely or not at all while batches are withdrawn, restored and pruned.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy.engine import Engine

from models.errors import DatabaseError
from tasks.database import retention
from tasks.database.batches import compare_rows, find_published_batch, list_batches, list_batches_of_date, stream_scores
from tasks.database.chunks import RejectedMessage, ScoredChunk
from tasks.database.connection import connect, read_transaction, run_with_retries, write_transaction
from tasks.database.ledger import BatchPlan, commit_chunk, publish_batch, restore_batch, start_batch, withdraw_batch
from tasks.database.retention import PrunedRows, find_prunable_batches, prune_batch
from tasks.database.schema import open_database
from tasks.database.tables import batch_chunks, published_scores, rejected_messages, score_batches, spam_scores
from tasks.settings.storage import DatabaseSettings

DATE = datetime.date(2001, 1, 31)
LATER = DATE + datetime.timedelta(days=1)
LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
FOREVER = datetime.date(9000, 1, 1)


def start_with_chunks(
    engine: Engine, recipe: str = "r", date: datetime.date = DATE, chunks: int = 0, rows: int = 3
) -> int:
    """Starts a batch with a number of chunks. Each chunk has one rejected message in addition to its rows."""
    batch_id = start_batch(engine, BatchPlan(date, recipe, "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10)).batch_id
    for number in range(chunks):
        commit(engine, batch_id, number, rows)
    return batch_id


def commit(engine: Engine, batch_id: int, number: int, rows: int) -> None:
    ids = [f"{number}-{row:04}" for row in range(rows)]
    values = np.linspace(0, 1, rows)
    rejected = [RejectedMessage(1000 * number, None, "empty text")]
    commit_chunk(engine, batch_id, ScoredChunk(number, 0, ids, np.arange(rows), values, values >= 0.5, rejected, 0.1))


def publish(engine: Engine, recipe: str = "r", date: datetime.date = DATE, chunks: int = 2, rows: int = 3) -> int:
    batch_id = start_with_chunks(engine, recipe, date, chunks, rows)
    publish_batch(engine, batch_id, chunks * (rows + 1))
    return batch_id


def prune(engine: Engine, before: datetime.date = LATER) -> list[PrunedRows]:
    return [prune_batch(engine, batch, before) for batch in find_prunable_batches(engine, before)]


def count_remaining_rows(engine: Engine) -> dict[int, tuple[int, int, int]]:
    """Counts the scores, rejected messages and chunks of each batch."""
    remaining = {}
    with read_transaction(engine) as connection:
        for batch_id in connection.scalars(sa.select(score_batches.c.batch_id)).all():
            counts = [
                connection.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.batch_id == batch_id))
                for table in (spam_scores, rejected_messages, batch_chunks)
            ]
            remaining[batch_id] = (counts[0] or 0, counts[1] or 0, counts[2] or 0)
    return remaining


def states(engine: Engine) -> dict[int, str]:
    return {row.batch_id: row.state for row in list_batches(engine)}


def set_columns(engine: Engine, table: sa.Table, batch_id: int, **values: Any) -> None:
    with write_transaction(engine) as connection:
        connection.execute(sa.update(table).where(table.c.batch_id == batch_id).values(values))


# Pruning


def test_only_rows_of_superseded_and_withdrawn_batches_are_deleted(engine: Engine) -> None:
    first, second = publish(engine, "a"), publish(engine, "b")
    third = publish(engine, "c")
    withdraw_batch(engine, third)
    restore_batch(engine, second)
    before = list(stream_scores(engine, DATE))
    assert prune(engine) == [
        PrunedRows(first, DATE, "superseded", 6, 2, 2),
        PrunedRows(third, DATE, "withdrawn", 6, 2, 2),
    ]
    assert count_remaining_rows(engine) == {first: (0, 0, 0), second: (6, 2, 2), third: (0, 0, 0)}
    assert list(stream_scores(engine, DATE)) == before
    assert prune(engine) == []


def test_the_row_of_a_pruned_batch_is_unchanged(engine: Engine) -> None:
    first = publish(engine, "a")
    publish(engine, "b")
    before = list_batches(engine)
    prune(engine)
    assert list_batches(engine) == before
    assert first in states(engine)


def test_batches_inside_the_retention_period_are_kept(engine: Engine) -> None:
    for recipe in ("a", "b"):
        publish(engine, recipe, DATE)
        publish(engine, recipe, LATER)
    assert find_prunable_batches(engine, DATE) == []
    assert [batch.batch_date for batch in find_prunable_batches(engine, LATER)] == [DATE]
    assert [batch.batch_date for batch in find_prunable_batches(engine, FOREVER)] == [DATE, LATER]


def test_a_stale_running_batch_is_withdrawn_and_its_rows_are_deleted(engine: Engine) -> None:
    batch_id = start_with_chunks(engine, chunks=2)
    set_columns(engine, score_batches, batch_id, started_at=LONG_AGO)
    set_columns(engine, batch_chunks, batch_id, written_at=LONG_AGO)
    assert prune(engine) == [PrunedRows(batch_id, DATE, "running", 6, 2, 2)]
    assert states(engine) == {batch_id: "withdrawn"}
    with pytest.raises(DatabaseError, match="is withdrawn"):
        commit(engine, batch_id, 2, 3)
    assert prune(engine) == []


@pytest.mark.parametrize("table", [score_batches, batch_chunks], ids=lambda table: table.name)
def test_a_running_batch_of_an_old_date_is_not_stale(engine: Engine, table: sa.Table) -> None:
    batch_id = start_with_chunks(engine, chunks=1)
    column = "written_at" if table is score_batches else "started_at"
    other = batch_chunks if table is score_batches else score_batches
    set_columns(engine, other, batch_id, **{column: LONG_AGO})
    assert find_prunable_batches(engine, LATER) == []
    prune_batch(engine, PrunedRows(batch_id, DATE, "running", 3, 1, 1), LATER)
    assert (states(engine), count_remaining_rows(engine)) == ({batch_id: "running"}, {batch_id: (3, 1, 1)})


def test_no_transaction_deletes_more_rows_than_one_slice(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_SLICE_ROWS", 4)
    deleted = record_deleted_rows(monkeypatch)
    batch_id = publish(engine, "a", rows=7)
    other = publish(engine, "b", rows=7)
    assert prune(engine) == [PrunedRows(batch_id, DATE, "superseded", 14, 2, 2)]
    assert deleted == [4, 4, 4, 2, 2, 2]
    assert count_remaining_rows(engine) == {batch_id: (0, 0, 0), other: (14, 2, 2)}


def record_deleted_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that collects the number of rows that each transaction deletes."""
    deleted: list[int] = []

    def record(engine: Engine, work: Any) -> Any:
        result = run_with_retries(engine, work)
        if result is not None:
            deleted.append(result)
        return result

    monkeypatch.setattr(retention, "run_with_retries", record)
    return deleted


def test_a_killed_prune_can_be_repeated_and_its_batch_cannot_be_restored(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = publish(engine, "a"), publish(engine, "b")
    monkeypatch.setattr(retention, "_SLICE_ROWS", 4)
    kill_after_the_first_slice(engine, monkeypatch)
    assert count_remaining_rows(engine)[first] == (2, 2, 2)
    with pytest.raises(DatabaseError, match=r"is incomplete and stays superseded: scored: expected 6, found 2"):
        restore_batch(engine, first)
    assert states(engine) == {first: "superseded", second: "published"}
    assert prune(engine) == [PrunedRows(first, DATE, "superseded", 2, 2, 2)]


def kill_after_the_first_slice(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(engine: Engine, work: Any) -> Any:
        if run_with_retries(engine, work) is not None:
            raise KeyboardInterrupt
        return None

    with monkeypatch.context() as patched:
        patched.setattr(retention, "run_with_retries", kill)
        with pytest.raises(KeyboardInterrupt):
            prune(engine)


def test_a_batch_restored_before_pruning_loses_no_rows(engine: Engine) -> None:
    first = publish(engine, "a")
    publish(engine, "b")
    (batch,) = find_prunable_batches(engine, LATER)
    restore_batch(engine, first)
    assert prune_batch(engine, batch, LATER).rows == 0
    assert count_remaining_rows(engine)[first] == (6, 2, 2)


def test_concurrent_prunes_delete_each_row_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_SLICE_ROWS", 7)
    first = publish(engine, "a", rows=60)
    publish(engine, "b", rows=60)
    pruned: list[PrunedRows] = []
    threads = [threading.Thread(target=lambda: pruned.extend(prune(engine))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sum(batch.rows for batch in pruned) == 124
    assert count_remaining_rows(engine)[first] == (0, 0, 0)


def test_a_database_without_tables_has_nothing_to_prune(database_url: str) -> None:
    assert find_prunable_batches(connect(DatabaseSettings(url=database_url)), FOREVER) == []


# Comparing


def test_an_unchanged_published_batch_agrees_with_its_rows(engine: Engine) -> None:
    publish(engine)
    (batch,) = list_batches_of_date(engine, DATE)
    comparisons = compare_rows(engine, batch)
    assert [(comparison.name, comparison.expected) for comparison in comparisons] == [
        ("checksum", batch.checksum), ("scored", 6), ("rejected", 2), ("flagged", 4), ("messages_read", 8),
    ]  # fmt: skip
    assert all(comparison.agrees for comparison in comparisons)


@pytest.mark.parametrize(
    ("damage", "differing"),
    [
        (sa.delete(spam_scores).where(spam_scores.c.message_id == "0-0000"), {"checksum", "scored", "messages_read"}),
        (sa.delete(rejected_messages).where(rejected_messages.c.row_number == 0), {"rejected", "messages_read"}),
        (sa.update(spam_scores).values(flagged=True), {"checksum", "flagged"}),
        (sa.update(spam_scores).values(spam_probability=0.25), {"checksum"}),
        (sa.update(spam_scores).where(spam_scores.c.message_id == "0-0000").values(message_id="x"), {"checksum"}),
        (sa.update(score_batches).values(flagged=7), {"flagged"}),
    ],
)
def test_differences_from_the_published_values_are_named(engine: Engine, damage: Any, differing: set[str]) -> None:
    publish(engine)
    with write_transaction(engine) as connection:
        connection.execute(damage)
    (batch,) = list_batches_of_date(engine, DATE)
    assert {comparison.name for comparison in compare_rows(engine, batch) if not comparison.agrees} == differing


# What readers see


@contextlib.contextmanager
def poll_view(engine: Engine) -> Iterator[list[list[tuple[int, int]]]]:
    """Polls the view while the block runs; yields the list of results, each with batch and row count of the date."""
    seen: list[list[tuple[int, int]]] = []
    stop = threading.Event()
    view = published_scores.c
    statement = sa.select(view.batch_id, sa.func.count()).where(view.batch_date == DATE).group_by(view.batch_id)

    def poll() -> None:
        while not stop.is_set():
            with read_transaction(engine) as connection:
                seen.append([(int(row[0]), int(row[1])) for row in connection.execute(statement)])

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        yield seen
    finally:
        stop.set()
        reader.join(60)


def test_a_reader_sees_a_complete_batch_or_none_during_state_changes_and_pruning(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_SLICE_ROWS", 50)
    batch_ids = [publish(engine, recipe, chunks=1, rows=300) for recipe in "abcd"]
    with poll_view(engine) as seen:
        for _ in range(3):
            for batch_id in batch_ids[:2]:
                wait_for_poll(seen)
                restore_batch(engine, batch_id)
            wait_for_poll(seen)
            withdraw_batch(engine, batch_ids[1])
        restore_batch(engine, batch_ids[0])
        prune(engine)
        wait_for_poll(seen)
    assert all(rows == [] or rows in [[(batch_id, 300)] for batch_id in batch_ids] for rows in seen)
    assert {rows[0][0] if rows else None for rows in seen} >= {None, batch_ids[0], batch_ids[1]}
    assert {batch_id: counts[0] for batch_id, counts in count_remaining_rows(engine).items()} == {
        batch_ids[0]: 300, batch_ids[1]: 0, batch_ids[2]: 0, batch_ids[3]: 0,
    }  # fmt: skip


def wait_for_poll(seen: list[Any]) -> None:
    """Waits for two more polls: the second of them starts after this call."""
    pause, target = threading.Event(), len(seen) + 2
    while len(seen) < target:
        pause.wait(0.001)


# A state machine with all operations


@dataclass
class ModelBatch:
    """The expected state of a batch."""

    date: datetime.date
    recipe: str
    state: str = "running"
    chunks: set[int] = field(default_factory=set)
    expected: set[int] | None = None

    @property
    def is_complete(self) -> bool:
        return self.expected is not None and self.expected == self.chunks


class Ledger(RuleBasedStateMachine):
    """Starts, writes, publishes, withdraws, restores and prunes batches in any order, and compares with a model."""

    engine: Engine
    numbers = Bundle("numbers")

    def __init__(self) -> None:
        super().__init__()
        with write_transaction(self.engine) as connection:
            for table in (batch_chunks, rejected_messages, spam_scores, score_batches):
                connection.execute(sa.delete(table))
        self.expected_batches: dict[int, ModelBatch] = {}

    @rule(target=numbers, date=st.sampled_from([DATE, LATER]), recipe=st.sampled_from("ab"), chunks=st.integers(0, 2))
    def start(self, date: datetime.date, recipe: str, chunks: int) -> int:
        batch_id = start_with_chunks(self.engine, recipe, date)
        if batch_id not in self.expected_batches:
            self.replace_state(date, "running", "withdrawn")
            self.expected_batches[batch_id] = ModelBatch(date, recipe)
        assert self.expected_batches[batch_id].recipe == recipe
        for number in range(chunks):
            self.commit(batch_id, number)
        return batch_id

    @rule(target=numbers, date=st.sampled_from([DATE, LATER]), recipe=st.sampled_from("ab"))
    def score(self, date: datetime.date, recipe: str) -> int:
        batch_id = self.start(date, recipe, 1)
        self.publish(batch_id)
        return batch_id

    @rule(batch_id=numbers, number=st.integers(0, 2))
    def commit(self, batch_id: int, number: int) -> None:
        batch = self.expected_batches[batch_id]
        with self.error_unless(batch.state == "running" or number in batch.chunks):
            commit(self.engine, batch_id, number, 2)
            batch.chunks.add(number)

    @rule(batch_id=numbers)
    def publish(self, batch_id: int) -> None:
        batch = self.expected_batches[batch_id]
        with self.error_unless(batch.state in ("running", "published")):
            publish_batch(self.engine, batch_id, 3 * len(batch.chunks))
            if batch.state == "running":
                batch.expected = set(batch.chunks)
            self.show(batch)

    @rule(batch_id=numbers)
    def withdraw(self, batch_id: int) -> None:
        batch = self.expected_batches[batch_id]
        with self.error_unless(batch.state != "superseded"):
            withdraw_batch(self.engine, batch_id)
            batch.state = "withdrawn"

    @rule(batch_id=numbers)
    def restore(self, batch_id: int) -> None:
        batch = self.expected_batches[batch_id]
        with self.error_unless(batch.is_complete):
            restore_batch(self.engine, batch_id)
            self.show(batch)

    @rule(before=st.sampled_from([DATE, LATER, FOREVER]))
    def prune(self, before: datetime.date) -> None:
        prune(self.engine, before)
        for batch in self.expected_batches.values():
            if batch.date < before and batch.state == "running" and before == FOREVER:
                batch.state = "withdrawn"
            if batch.date < before and batch.state in ("superseded", "withdrawn"):
                batch.chunks.clear()

    @rule(batch_id=numbers, before=st.sampled_from([LATER, FOREVER]))
    def restore_after_pruning(self, batch_id: int, before: datetime.date) -> None:
        self.prune(before)
        self.restore(batch_id)

    def show(self, batch: ModelBatch) -> None:
        if batch.state != "published":
            self.replace_state(batch.date, "published", "superseded")
            batch.state = "published"

    def replace_state(self, date: datetime.date, state: str, new_state: str) -> None:
        for batch in self.expected_batches.values():
            if (batch.date, batch.state) == (date, state):
                batch.state = new_state

    @contextlib.contextmanager
    def error_unless(self, allowed: bool) -> Iterator[None]:
        with contextlib.nullcontext() if allowed else pytest.raises(DatabaseError):
            yield

    @invariant()
    def the_database_equals_the_model(self) -> None:
        assert states(self.engine) == {batch_id: batch.state for batch_id, batch in self.expected_batches.items()}
        assert count_remaining_rows(self.engine) == {
            batch_id: (2 * len(batch.chunks), len(batch.chunks), len(batch.chunks))
            for batch_id, batch in self.expected_batches.items()
        }

    @invariant()
    def readers_see_the_complete_published_batch_of_each_date(self) -> None:
        for date in (DATE, LATER):
            published = [
                (batch_id, batch)
                for batch_id, batch in self.expected_batches.items()
                if (batch.date, batch.state) == (date, "published")
            ]
            expected = {
                (batch_id, f"{number}-{row:04}")
                for batch_id, batch in published
                for number in batch.chunks
                for row in (0, 1)
            }
            assert {(row.batch_id, row.message_id) for row in stream_scores(self.engine, date)} == expected
            found = find_published_batch(self.engine, date)
            assert [batch_id for batch_id, _ in published] == ([found.batch_id] if found else [])
            assert not found or all(comparison.agrees for comparison in compare_rows(self.engine, found))


def test_the_database_equals_a_simple_model_after_any_operations(sqlite_url: str) -> None:
    Ledger.engine = open_database(DatabaseSettings(url=sqlite_url))
    # Durability after a power failure is not tested here.
    sa.event.listen(Ledger.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    limits = settings(max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Ledger, settings=limits)


# Artifacts


def test_only_folders_of_old_dates_are_deleted(tmp_path: Path) -> None:
    for name in ("snapshots/2001-01-30/f", "snapshots/2001-01-31/f", "reports/2001-01-30", "receipts/2001-01-30"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("snapshots/20010130", "snapshots/2001-13-01", "snapshots/latest"):
        (tmp_path / name).mkdir()
    (tmp_path / "reports" / "index.html").write_text("", encoding="utf-8")
    (tmp_path / "reports" / "2001-01-29").write_text("a file", encoding="utf-8")
    deleted = retention.delete_dated_folders(tmp_path, DATE)
    assert deleted == [tmp_path / "reports" / "2001-01-30", tmp_path / "snapshots" / "2001-01-30"]
    remaining = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")}
    assert remaining == {
        "snapshots/2001-01-31", "snapshots/20010130", "snapshots/2001-13-01", "snapshots/latest",
        "receipts/2001-01-30", "reports/index.html", "reports/2001-01-29",
    }  # fmt: skip
    assert retention.delete_dated_folders(tmp_path / "none", DATE) == []
