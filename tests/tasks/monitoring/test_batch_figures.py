"""The figures of a batch: read in one pass over rows and snapshot, with a reason for each missing source."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from published_batches import DATE, publish
from sqlalchemy.engine import Engine

from models.statistics.stability import count_scores
from tasks.artifacts.folders import write_manifest
from tasks.database.batches import find_published_batch, read_rejection_reasons
from tasks.database.chunks import RejectedMessage
from tasks.monitoring import batch_figures
from tasks.monitoring.batch_figures import (
    SmallestKeys,
    read_counts,
    read_ledger_counts,
    read_scores,
    read_texts,
    read_validation_counts,
    read_vocabulary,
)
from tasks.rejection_limit import Reason
from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotRow, write_snapshot

SCORES = {f"m-{number:03d}": round(number % 50 / 50, 6) for number in range(100)}
REJECTED = [RejectedMessage(101, None, "empty text"), RejectedMessage(102, "b", "empty text"),
           RejectedMessage(103, "c", "unreadable row", "why")]  # fmt: skip


@pytest.fixture(autouse=True)
def _few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the batch of a test come in several parts."""
    monkeypatch.setattr(batch_figures, "_FETCH_ROWS", 7)
    monkeypatch.setattr(batch_figures, "_CHUNK_ROWS", 7)


def test_the_rows_of_a_batch_are_counted_and_the_extreme_messages_found_in_one_pass(engine: Engine) -> None:
    publish(engine, SCORES, rejected=REJECTED)
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    seen: list[float] = []
    found = read_scores(engine, batch, 5, lambda done, _total, _status: seen.append(done))
    assert (found.rows, found.flagged, found.checksum) == (batch.scored, batch.flagged, batch.checksum)
    assert found.counts.tolist() == count_scores(list(SCORES.values())).tolist()
    highest = sorted(SCORES, key=lambda name: (-SCORES[name], name))[:5]
    assert [message.message_id for message in found.suspicious] == highest
    nearest = [message.message_id for message in found.uncertain]
    assert nearest[:2] == ["m-025", "m-075"]
    assert set(nearest[2:]) < {"m-024", "m-026", "m-074", "m-076"}  # equal distances except for the last bit
    assert found.suspicious[0].probability == 0.98
    assert (seen[0], seen[-1]) == (7, 100)
    assert read_counts(engine, batch).tolist() == found.counts.tolist()


def test_rejected_messages_and_the_ledger_are_counted(engine: Engine) -> None:
    batch_id = publish(engine, SCORES, rejected=REJECTED)
    reasons = read_rejection_reasons(engine, batch_id)
    assert reasons == [Reason("empty text", 2, 101, None), Reason("unreadable row", 1, 103, "why")]
    assert read_ledger_counts(engine, batch_id) == {
        "chunks": 1, "messages_read": 103, "scored": 100, "rejected": 3, "flagged": 50,
    }  # fmt: skip
    assert read_ledger_counts(engine, 99)["messages_read"] == 0


def test_an_empty_batch_has_figures(engine: Engine) -> None:
    publish(engine, {})
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    found = read_scores(engine, batch, 5)
    assert (found.rows, found.suspicious, found.checksum) == (0, [], batch.checksum)


def test_equal_keys_keep_the_first_identifiers_in_any_order() -> None:
    smallest = SmallestKeys(3)
    for names in (["d", "b"], ["e", "a"], ["c"]):
        zeros = np.zeros(len(names))
        smallest.add(zeros, names, zeros, zeros.astype(bool))
    assert [message.message_id for message in smallest.messages()] == ["a", "b", "c"]


def snapshot(folder: Path, texts: list[str | None], ids: list[str | None] | None = None) -> Path:
    names = ids or [f"m-{number}" for number in range(1, len(texts) + 1)]
    folder.mkdir()
    rows = [SnapshotRow(number, name, text, None) for number, (name, text) in enumerate(zip(names, texts, strict=True))]
    write_snapshot(rows, folder / SNAPSHOT_FILE)
    write_manifest(folder, {"fingerprint": folder.name})
    return folder


def test_texts_are_measured_and_requested_texts_found(tmp_path: Path) -> None:
    texts = ["first", " ", None, "привет", *(f"message {number}" for number in range(5, 31))]
    ids = [f"m-{number}" for number in range(1, 31)]
    ids[29] = "m-1"  # a repeated identifier: the first was scored
    found = read_texts(snapshot(tmp_path / "s", texts, ids), {"m-1", "m-4", "m-2", "absent"}, 1000, None)
    assert not isinstance(found, str)
    assert (found.rows, found.step, found.statistics.messages) == (30, 1, 28)
    assert found.texts == {"m-1": "first", "m-4": "привет"}
    assert found.statistics.scripts == {"Latin": 27, "Cyrillic": 1}


@pytest.mark.parametrize(("sample", "step", "measured"), [(30, 1, 30), (29, 2, 15), (10, 3, 10), (7, 5, 6), (1, 30, 1)])
def test_a_large_batch_is_sampled_evenly(tmp_path: Path, sample: int, step: int, measured: int) -> None:
    folder = snapshot(tmp_path / "s", [f"message {number}" for number in range(30)])
    found = read_texts(folder, set(), sample, None)
    assert not isinstance(found, str)
    assert (found.rows, found.step, found.statistics.messages) == (30, step, measured)


def test_a_missing_or_damaged_source_returns_the_reason(tmp_path: Path) -> None:
    assert "are no longer in" in str(read_texts(tmp_path / "gone", set(), 10, None))
    folder = snapshot(tmp_path / "s", ["one"])
    os.truncate(folder / SNAPSHOT_FILE, 10)
    assert "not the snapshot that was written" in str(read_texts(folder, set(), 10, None))
    for found in (read_vocabulary(tmp_path / "gone"), read_validation_counts(tmp_path / "gone")):
        assert isinstance(found, str)
        assert "is no longer in" in found
    training = tmp_path / "training"
    training.mkdir()
    assert "manifest.json" in str(read_validation_counts(training))
    write_manifest(training, {"fingerprint": "training"})
    assert "was trained by an older version" in str(read_validation_counts(training))
    assert "not the file that was written" in str(read_vocabulary(training))
