"""Scoring a chunk: which messages are scored, which are rejected, and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.errors import ArtifactError
from models.inference.scorer import Scores
from tasks.database.chunks import RejectedMessage, ScoredChunk
from tasks.scoring.chunk_scoring import score_chunk
from tasks.scoring.overlap import StageSeconds
from tasks.sources.snapshots import SnapshotChunk


class Lengths:
    """Scores a message by its length; fails on messages that start with "raise" or "nan"."""

    def score(self, texts: Sequence[str] | pa.Array) -> Scores:
        texts = texts.to_pylist() if isinstance(texts, pa.Array) else texts
        if any(text.startswith("raise") for text in texts):
            raise ValueError("no\x1b[31m\nsense")
        values = [np.nan if text.startswith("nan") else len(text) / 10 for text in texts]
        return Scores(np.array(values, np.float64), 0.5, 0.25)


def chunk(*rows: tuple[str | None, str | None, str | None]) -> SnapshotChunk:
    """Returns the second chunk of a snapshot with chunks of 50 rows."""
    ids, texts, faults = zip(*rows, strict=True) if rows else ((), (), ())
    columns = (pa.array(values, pa.string()) for values in (ids, texts, faults))
    return SnapshotChunk(1, 51, np.arange(51, 51 + len(rows)), *columns, pa.nulls(len(rows), pa.int64()))


def scored_chunk(chunk: SnapshotChunk, seconds: StageSeconds | None = None) -> ScoredChunk:
    return score_chunk(Lengths(), chunk, 0.5, seconds or StageSeconds())


def test_valid_messages_are_scored_and_the_others_rejected_with_their_rows() -> None:
    seconds = StageSeconds()
    rows = [
        ("a", "four", None), (None, "no id", None), ("b", "raise it", None), ("c", " \n", None), ("d", "sixsix", None),
        ("e", None, "bad row: why"), ("f", "nan", None), ("g", "five5", None),
    ]  # fmt: skip
    scored = scored_chunk(chunk(*rows), seconds)
    assert (scored.chunk_number, scored.first_row, scored.messages_read) == (1, 51, 8)
    assert scored.message_ids == ["a", "d", "g"]
    assert scored.row_numbers.tolist() == [51, 55, 58]
    assert scored.probabilities.tolist() == [0.4, 0.6, 0.5]
    assert scored.flagged.tolist() == [False, True, True]
    assert scored.rejected == [
        RejectedMessage(52, None, "missing message_id"),
        RejectedMessage(53, "b", "scoring failed", "ValueError: no [31m"),
        RejectedMessage(54, "c", "empty text"),
        RejectedMessage(56, "e", "unreadable row", "bad row: why"),
        RejectedMessage(57, "f", "scoring failed", "FloatingPointError: the probability is not a finite number"),
    ]
    assert (seconds.total("text"), seconds.total("network")) > (0, 0)


def test_a_rejected_message_is_logged_with_row_and_escaped_id(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING, "spamscore"):
        scored_chunk(chunk(("a", "x", None), ("b\x1b[2J\n" + "c" * 200, "raise", None)))
    (line,) = caplog.messages
    assert line.startswith("row 52, message 'b\\x1b[2J\\nccc")
    assert line.endswith("': scoring failed, message rejected: ValueError: no [31m")
    assert len(line) < 200


@pytest.mark.parametrize("rows", [[], [("a", "", None)], [("a", "raise", None)], [(None, None, "x")] * 3])
def test_a_chunk_can_have_no_message_that_can_be_scored(rows: list[tuple[str | None, str | None, str | None]]) -> None:
    scored = scored_chunk(chunk(*rows))
    assert (scored.message_ids, len(scored.rejected), len(scored.probabilities)) == ([], len(rows), 0)


def test_a_chunk_in_which_every_message_fails_raises_the_first_error() -> None:
    with pytest.raises(ArtifactError, match=r"none of 11 messages can be scored.*ValueError: no"):
        scored_chunk(chunk(*[("a", "raise", None)] * 11))
