"""Scoring a snapshot: a chunk at a time, which message is scored, which is refused, and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.inference.scorer import Scores
from tasks.database.chunks import RejectedMessage, ScoredChunk, refusal, refusals
from tasks.scoring.local import score_chunk
from tasks.scoring.overlap import StageSeconds
from tasks.sources.snapshots import SnapshotChunk


class Lengths:
    """Scores a message by its length; some messages it cannot score at all."""

    def score(self, texts: Sequence[str] | pa.Array) -> Scores:
        texts = texts.to_pylist() if isinstance(texts, pa.Array) else texts
        if any(text.startswith("raise") for text in texts):
            raise ValueError("no\x1b[31m\nsense")
        values = [np.nan if text.startswith("nan") else len(text) / 10 for text in texts]
        return Scores(np.array(values, np.float64), 0.5, 0.25)


def chunk(*rows: tuple[str | None, str | None, str | None]) -> SnapshotChunk:
    """The second chunk of a snapshot in chunks of 50."""
    ids, texts, faults = zip(*rows, strict=True) if rows else ((), (), ())
    columns = (pa.array(one, pa.string()) for one in (ids, texts, faults))
    return SnapshotChunk(1, 51, np.arange(51, 51 + len(rows)), *columns)


def scored_chunk(chunk: SnapshotChunk, seconds: StageSeconds | None = None) -> ScoredChunk:
    return score_chunk(Lengths(), chunk, 0.5, seconds or StageSeconds())


def test_what_can_be_scored_is_and_the_rest_is_refused_each_with_its_row() -> None:
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
    assert (seconds.of("text"), seconds.of("network")) > (0, 0)


def test_a_message_set_aside_is_warned_of_by_row_and_id_and_the_id_cannot_act_on_a_terminal(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.WARNING, "spamscore"):
        scored_chunk(chunk(("a", "x", None), ("b\x1b[2J\n" + "c" * 500, "raise", None)))
    (line,) = caplog.messages
    assert line.startswith("row 52, message 'b\\x1b[2J\\nccc")
    assert line.endswith("': scoring failed, set aside: ValueError: no [31m")
    assert len(line) < 200


@pytest.mark.parametrize("rows", [[], [("a", "", None)], [("a", "raise", None)], [(None, None, "x")] * 3])
def test_a_chunk_may_have_no_message_that_can_be_scored(rows: list[tuple[str | None, str | None, str | None]]) -> None:
    scored = scored_chunk(chunk(*rows))
    assert (scored.message_ids, len(scored.rejected), len(scored.probabilities)) == ([], len(rows), 0)


def test_a_chunk_in_which_everything_fails_is_an_error_that_says_what_failed_first() -> None:
    with pytest.raises(ArtifactError, match=r"none of 11 messages can be scored.*ValueError: no"):
        scored_chunk(chunk(*[("a", "raise", None)] * 11))


@pytest.mark.parametrize(
    ("message_id", "text", "fault", "reason"),
    [
        ("a", "x", None, None),
        (" ", "x", None, None),
        ("0", "\u200b", None, None),
        (None, "x", None, "missing message_id"),
        ("", "", None, "missing message_id"),
        ("a", None, None, "empty text"),
        ("a", "\u2003\u00a0\n", None, "empty text"),
        (None, None, "wrong number of fields", "unreadable row"),
    ],
)
def test_a_message_is_refused_for_the_first_thing_that_is_wrong(
    message_id: str | None, text: str | None, fault: str | None, reason: str | None
) -> None:
    found = refusal(7, message_id, text, fault)
    assert (found and found.reason) == reason
    assert found is None or (found.row_number, found.message_id) == (7, message_id)


ids = st.sampled_from([None, "", " ", "a", "\u00e9"])
texts = st.none() | st.text(st.sampled_from(" \t\n\v\x1c\x85\u00a0\u2003\u200b\u3000x\u4e2d"), max_size=3)
faults = st.sampled_from([None, None, None, "", "bad row: x"])


@given(rows=st.lists(st.tuples(ids, texts, faults), max_size=20))
def test_the_messages_refused_of_a_chunk_are_those_that_are_refused_one_by_one(
    rows: list[tuple[str | None, str | None, str | None]],
) -> None:
    expected = {place: refusal(51 + place, *row) for place, row in enumerate(rows)}
    assert refusals(chunk(*rows)) == {place: one for place, one in expected.items() if one is not None}
