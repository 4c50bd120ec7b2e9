"""Old batches leave in bounded steps and nothing that is read goes with them; whatever is flipped, readers see a batch
whole or not at all.
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


def begun(engine: Engine, recipe: str = "r", date: datetime.date = DATE, chunks: int = 0, rows: int = 3) -> int:
    """A running batch with some chunks; each has one refused message beside its rows."""
    batch_id = start_batch(engine, BatchPlan(date, recipe, "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10)).batch_id
    for number in range(chunks):
        commit(engine, batch_id, number, rows)
    return batch_id


def commit(engine: Engine, batch_id: int, number: int, rows: int) -> None:
    ids = [f"{number}-{one:04}" for one in range(rows)]
    values = np.linspace(0, 1, rows)
    refused = [RejectedMessage(1000 * number, None, "empty text")]
    commit_chunk(engine, batch_id, ScoredChunk(number, 0, ids, np.arange(rows), values, values >= 0.5, refused, 0.1))


def published(engine: Engine, recipe: str = "r", date: datetime.date = DATE, chunks: int = 2, rows: int = 3) -> int:
    batch_id = begun(engine, recipe, date, chunks, rows)
    publish_batch(engine, batch_id, chunks * (rows + 1))
    return batch_id


def prune(engine: Engine, before: datetime.date = LATER) -> list[PrunedRows]:
    return [prune_batch(engine, one, before) for one in find_prunable_batches(engine, before)]


def rows_left(engine: Engine) -> dict[int, tuple[int, int, int]]:
    """Scores, refused messages and chunks of each batch."""
    left = {}
    with read_transaction(engine) as connection:
        for batch_id in connection.scalars(sa.select(score_batches.c.batch_id)).all():
            counts = [
                connection.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.batch_id == batch_id))
                for table in (spam_scores, rejected_messages, batch_chunks)
            ]
            left[batch_id] = (counts[0] or 0, counts[1] or 0, counts[2] or 0)
    return left


def states(engine: Engine) -> dict[int, str]:
    return {row.batch_id: row.state for row in list_batches(engine)}


def set_columns(engine: Engine, table: sa.Table, batch_id: int, **values: Any) -> None:
    with write_transaction(engine) as connection:
        connection.execute(sa.update(table).where(table.c.batch_id == batch_id).values(values))


# Pruning


def test_the_rows_of_superseded_and_withdrawn_batches_go_and_published_ones_stay(engine: Engine) -> None:
    first, second = published(engine, "a"), published(engine, "b")
    third = published(engine, "c")
    withdraw_batch(engine, third)
    restore_batch(engine, second)
    before = list(stream_scores(engine, DATE))
    assert prune(engine) == [
        PrunedRows(first, DATE, "superseded", 6, 2, 2),
        PrunedRows(third, DATE, "withdrawn", 6, 2, 2),
    ]
    assert rows_left(engine) == {first: (0, 0, 0), second: (6, 2, 2), third: (0, 0, 0)}
    assert list(stream_scores(engine, DATE)) == before
    assert prune(engine) == []


def test_a_pruned_batch_keeps_its_row_as_it_was(engine: Engine) -> None:
    first = published(engine, "a")
    published(engine, "b")
    before = list_batches(engine)
    prune(engine)
    assert list_batches(engine) == before
    assert first in states(engine)


def test_batches_of_the_days_that_are_kept_stay(engine: Engine) -> None:
    for recipe in ("a", "b"):
        published(engine, recipe, DATE)
        published(engine, recipe, LATER)
    assert find_prunable_batches(engine, DATE) == []
    assert [one.batch_date for one in find_prunable_batches(engine, LATER)] == [DATE]
    assert [one.batch_date for one in find_prunable_batches(engine, FOREVER)] == [DATE, LATER]


def test_a_stale_running_batch_is_withdrawn_and_its_rows_go(engine: Engine) -> None:
    batch_id = begun(engine, chunks=2)
    set_columns(engine, score_batches, batch_id, started_at=LONG_AGO)
    set_columns(engine, batch_chunks, batch_id, written_at=LONG_AGO)
    assert prune(engine) == [PrunedRows(batch_id, DATE, "running", 6, 2, 2)]
    assert states(engine) == {batch_id: "withdrawn"}
    with pytest.raises(DatabaseError, match="is withdrawn"):
        commit(engine, batch_id, 2, 3)
    assert prune(engine) == []


@pytest.mark.parametrize("table", [score_batches, batch_chunks], ids=lambda one: one.name)
def test_an_old_date_that_is_scored_now_is_not_stale(engine: Engine, table: sa.Table) -> None:
    batch_id = begun(engine, chunks=1)
    column = "written_at" if table is score_batches else "started_at"
    other = batch_chunks if table is score_batches else score_batches
    set_columns(engine, other, batch_id, **{column: LONG_AGO})
    assert find_prunable_batches(engine, LATER) == []
    prune_batch(engine, PrunedRows(batch_id, DATE, "running", 3, 1, 1), LATER)
    assert (states(engine), rows_left(engine)) == ({batch_id: "running"}, {batch_id: (3, 1, 1)})


def test_no_transaction_deletes_more_rows_than_a_slice(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_SLICE_ROWS", 4)
    deleted = watched_slices(monkeypatch)
    batch_id = published(engine, "a", rows=7)
    other = published(engine, "b", rows=7)
    assert prune(engine) == [PrunedRows(batch_id, DATE, "superseded", 14, 2, 2)]
    assert deleted == [4, 4, 4, 2, 2, 2]
    assert rows_left(engine) == {batch_id: (0, 0, 0), other: (14, 2, 2)}


def watched_slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows deleted by each transaction."""
    deleted: list[int] = []

    def watch(engine: Engine, work: Any) -> Any:
        found = run_with_retries(engine, work)
        if found is not None:
            deleted.append(found)
        return found

    monkeypatch.setattr(retention, "run_with_retries", watch)
    return deleted


def test_a_prune_killed_in_the_middle_is_run_again_and_the_batch_cannot_come_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = published(engine, "a"), published(engine, "b")
    monkeypatch.setattr(retention, "_SLICE_ROWS", 4)
    killed_after_the_first_slice(engine, monkeypatch)
    assert rows_left(engine)[first] == (2, 2, 2)
    with pytest.raises(DatabaseError, match=r"is incomplete and stays superseded: scored: expected 6, found 2"):
        restore_batch(engine, first)
    assert states(engine) == {first: "superseded", second: "published"}
    assert prune(engine) == [PrunedRows(first, DATE, "superseded", 2, 2, 2)]


def killed_after_the_first_slice(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(engine: Engine, work: Any) -> Any:
        if run_with_retries(engine, work) is not None:
            raise KeyboardInterrupt
        return None

    with monkeypatch.context() as patched:
        patched.setattr(retention, "run_with_retries", kill)
        with pytest.raises(KeyboardInterrupt):
            prune(engine)


def test_a_batch_restored_before_its_turn_loses_nothing(engine: Engine) -> None:
    first = published(engine, "a")
    published(engine, "b")
    (found,) = find_prunable_batches(engine, LATER)
    restore_batch(engine, first)
    assert prune_batch(engine, found, LATER).rows == 0
    assert rows_left(engine)[first] == (6, 2, 2)


def test_two_prunes_at_once_delete_each_row_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_SLICE_ROWS", 7)
    first = published(engine, "a", rows=60)
    published(engine, "b", rows=60)
    found: list[PrunedRows] = []
    threads = [threading.Thread(target=lambda: found.extend(prune(engine))) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert sum(one.rows for one in found) == 124
    assert rows_left(engine)[first] == (0, 0, 0)


def test_a_database_without_tables_has_nothing_to_prune(database_url: str) -> None:
    assert find_prunable_batches(connect(DatabaseSettings(url=database_url)), FOREVER) == []


# Comparing


def test_a_batch_as_it_was_published_agrees_with_its_rows(engine: Engine) -> None:
    published(engine)
    (batch,) = list_batches_of_date(engine, DATE)
    compared = compare_rows(engine, batch)
    assert [(one.name, one.expected) for one in compared] == [
        ("checksum", batch.checksum), ("scored", 6), ("rejected", 2), ("flagged", 4), ("messages_read", 8),
    ]  # fmt: skip
    assert all(one.agrees for one in compared)


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
def test_what_differs_from_what_was_published_is_named(engine: Engine, damage: Any, differing: set[str]) -> None:
    published(engine)
    with write_transaction(engine) as connection:
        connection.execute(damage)
    (batch,) = list_batches_of_date(engine, DATE)
    assert {one.name for one in compare_rows(engine, batch) if not one.agrees} == differing


# What readers see


@contextlib.contextmanager
def polled(engine: Engine) -> Iterator[list[list[tuple[int, int]]]]:
    """What a reader sees who asks all the time: batches of the date, and how many rows of each."""
    seen: list[list[tuple[int, int]]] = []
    stop = threading.Event()
    view = published_scores.c
    wanted = sa.select(view.batch_id, sa.func.count()).where(view.batch_date == DATE).group_by(view.batch_id)

    def poll() -> None:
        while not stop.is_set():
            with read_transaction(engine) as connection:
                seen.append([(int(row[0]), int(row[1])) for row in connection.execute(wanted)])

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        yield seen
    finally:
        stop.set()
        reader.join(60)


def test_a_reader_sees_a_batch_whole_or_nothing_while_batches_are_flipped_and_pruned(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_SLICE_ROWS", 50)
    made = [published(engine, recipe, chunks=1, rows=300) for recipe in "abcd"]
    with polled(engine) as seen:
        for _ in range(3):
            for batch_id in made[:2]:
                wait_for_a_look(seen)
                restore_batch(engine, batch_id)
            wait_for_a_look(seen)
            withdraw_batch(engine, made[1])
        restore_batch(engine, made[0])
        prune(engine)
        wait_for_a_look(seen)
    assert all(one == [] or one in [[(batch_id, 300)] for batch_id in made] for one in seen)
    assert {one[0][0] if one else None for one in seen} >= {None, made[0], made[1]}
    assert {batch_id: left[0] for batch_id, left in rows_left(engine).items()} == {
        made[0]: 300, made[1]: 0, made[2]: 0, made[3]: 0,
    }  # fmt: skip


def wait_for_a_look(seen: list[Any]) -> None:
    """Until the reader has asked twice more: the second look began after this was called."""
    waiting, enough = threading.Event(), len(seen) + 2
    while len(seen) < enough:
        waiting.wait(0.001)


# Any order of all of them


@dataclass
class Known:
    """What the model knows of a batch."""

    date: datetime.date
    recipe: str
    state: str = "running"
    chunks: set[int] = field(default_factory=set)
    expected: set[int] | None = None

    @property
    def whole(self) -> bool:
        return self.expected is not None and self.expected == self.chunks


class Ledger(RuleBasedStateMachine):
    """Batches begun, written, published, withdrawn, restored and pruned in any order, beside a model in Python."""

    engine: Engine
    numbers = Bundle("numbers")

    def __init__(self) -> None:
        super().__init__()
        with write_transaction(self.engine) as connection:
            for table in (batch_chunks, rejected_messages, spam_scores, score_batches):
                connection.execute(sa.delete(table))
        self.known: dict[int, Known] = {}

    @rule(target=numbers, date=st.sampled_from([DATE, LATER]), recipe=st.sampled_from("ab"), chunks=st.integers(0, 2))
    def begin(self, date: datetime.date, recipe: str, chunks: int) -> int:
        batch_id = begun(self.engine, recipe, date)
        if batch_id not in self.known:
            self.end(date, "running", "withdrawn")
            self.known[batch_id] = Known(date, recipe)
        assert self.known[batch_id].recipe == recipe
        for number in range(chunks):
            self.commit(batch_id, number)
        return batch_id

    @rule(target=numbers, date=st.sampled_from([DATE, LATER]), recipe=st.sampled_from("ab"))
    def score(self, date: datetime.date, recipe: str) -> int:
        batch_id = self.begin(date, recipe, 1)
        self.publish(batch_id)
        return batch_id

    @rule(batch_id=numbers, number=st.integers(0, 2))
    def commit(self, batch_id: int, number: int) -> None:
        batch = self.known[batch_id]
        with self.refused_unless(batch.state == "running" or number in batch.chunks):
            commit(self.engine, batch_id, number, 2)
            batch.chunks.add(number)

    @rule(batch_id=numbers)
    def publish(self, batch_id: int) -> None:
        batch = self.known[batch_id]
        with self.refused_unless(batch.state in ("running", "published")):
            publish_batch(self.engine, batch_id, 3 * len(batch.chunks))
            if batch.state == "running":
                batch.expected = set(batch.chunks)
            self.show(batch)

    @rule(batch_id=numbers)
    def withdraw(self, batch_id: int) -> None:
        batch = self.known[batch_id]
        with self.refused_unless(batch.state != "superseded"):
            withdraw_batch(self.engine, batch_id)
            batch.state = "withdrawn"

    @rule(batch_id=numbers)
    def restore(self, batch_id: int) -> None:
        batch = self.known[batch_id]
        with self.refused_unless(batch.whole):
            restore_batch(self.engine, batch_id)
            self.show(batch)

    @rule(before=st.sampled_from([DATE, LATER, FOREVER]))
    def prune(self, before: datetime.date) -> None:
        prune(self.engine, before)
        for batch in self.known.values():
            if batch.date < before and batch.state == "running" and before == FOREVER:
                batch.state = "withdrawn"
            if batch.date < before and batch.state in ("superseded", "withdrawn"):
                batch.chunks.clear()

    @rule(batch_id=numbers, before=st.sampled_from([LATER, FOREVER]))
    def restore_after_pruning(self, batch_id: int, before: datetime.date) -> None:
        self.prune(before)
        self.restore(batch_id)

    def show(self, batch: Known) -> None:
        if batch.state != "published":
            self.end(batch.date, "published", "superseded")
            batch.state = "published"

    def end(self, date: datetime.date, state: str, ended: str) -> None:
        for batch in self.known.values():
            if (batch.date, batch.state) == (date, state):
                batch.state = ended

    @contextlib.contextmanager
    def refused_unless(self, allowed: bool) -> Iterator[None]:
        with contextlib.nullcontext() if allowed else pytest.raises(DatabaseError):
            yield

    @invariant()
    def the_database_is_as_the_model_says(self) -> None:
        assert states(self.engine) == {batch_id: batch.state for batch_id, batch in self.known.items()}
        assert rows_left(self.engine) == {
            batch_id: (2 * len(batch.chunks), len(batch.chunks), len(batch.chunks))
            for batch_id, batch in self.known.items()
        }

    @invariant()
    def readers_see_the_published_batch_of_each_date_whole(self) -> None:
        for date in (DATE, LATER):
            shown = [(key, one) for key, one in self.known.items() if (one.date, one.state) == (date, "published")]
            expected = {(key, f"{number}-{row:04}") for key, one in shown for number in one.chunks for row in (0, 1)}
            assert {(row.batch_id, row.message_id) for row in stream_scores(self.engine, date)} == expected
            found = find_published_batch(self.engine, date)
            assert [key for key, _ in shown] == ([found.batch_id] if found else [])
            assert not found or all(one.agrees for one in compare_rows(self.engine, found))


def test_whatever_is_done_in_any_order_the_database_is_as_a_simple_model_says(sqlite_url: str) -> None:
    Ledger.engine = open_database(DatabaseSettings(url=sqlite_url))
    # That it outlives a power cut is not what is asked here.
    sa.event.listen(Ledger.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    limits = settings(max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Ledger, settings=limits)


# Artifacts


def test_folders_of_old_dates_go_and_nothing_else_does(tmp_path: Path) -> None:
    for name in ("snapshots/2001-01-30/f", "snapshots/2001-01-31/f", "reports/2001-01-30", "receipts/2001-01-30"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("snapshots/20010130", "snapshots/2001-13-01", "snapshots/latest"):
        (tmp_path / name).mkdir()
    (tmp_path / "reports" / "index.html").write_text("", encoding="utf-8")
    (tmp_path / "reports" / "2001-01-29").write_text("a file", encoding="utf-8")
    gone = retention.delete_dated_folders(tmp_path, DATE)
    assert gone == [tmp_path / "reports" / "2001-01-30", tmp_path / "snapshots" / "2001-01-30"]
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")}
    assert left == {
        "snapshots/2001-01-31", "snapshots/20010130", "snapshots/2001-13-01", "snapshots/latest",
        "receipts/2001-01-30", "reports/index.html", "reports/2001-01-29",
    }  # fmt: skip
    assert retention.delete_dated_folders(tmp_path / "none", DATE) == []
