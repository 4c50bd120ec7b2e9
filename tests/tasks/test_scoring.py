"""Scoring a snapshot: a chunk at a time, which message is scored, which is refused, and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.errors import ArtifactError
from models.scoring import Scored
from tasks.chunks import RejectedMessage, refusal
from tasks.scoring import score_chunk
from tasks.snapshots import SnapshotChunk


class Lengths:
    """Scores a message by its length; some messages it cannot score at all."""

    def score(self, texts: Sequence[str]) -> Scored:
        if any(text.startswith("raise") for text in texts):
            raise ValueError("no\x1b[31m\nsense")
        values = [np.nan if text.startswith("nan") else len(text) / 10 for text in texts]
        return Scored(np.array(values, np.float64), 0.5, 0.25)


def chunk(*rows: tuple[str | None, str | None, str | None]) -> SnapshotChunk:
    """The second chunk of a snapshot in chunks of 50."""
    ids, texts, faults = zip(*rows, strict=True) if rows else ((), (), ())
    return SnapshotChunk(1, 51, np.arange(51, 51 + len(rows)), list(ids), list(texts), list(faults))


def test_what_can_be_scored_is_and_the_rest_is_refused_each_with_its_row() -> None:
    seconds = {"text": 1.0, "network": 1.0}
    rows = [
        ("a", "four", None), (None, "no id", None), ("b", "raise it", None), ("c", " \n", None), ("d", "sixsix", None),
        ("e", None, "bad row: why"), ("f", "nan", None), ("g", "five5", None),
    ]  # fmt: skip
    scored = score_chunk(Lengths(), chunk(*rows), 0.5, seconds)
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
        RejectedMessage(57, "f", "scoring failed", "FloatingPointError: the probability is no number"),
    ]
    assert seconds["text"] > 1.5
    assert seconds["network"] > 1.25


def test_a_message_set_aside_is_warned_of_by_row_and_id_and_the_id_cannot_act_on_a_terminal(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.WARNING, "spamscore"):
        score_chunk(Lengths(), chunk(("a", "x", None), ("b\x1b[2J\n" + "c" * 500, "raise", None)), 0.5, both())
    (line,) = caplog.messages
    assert line.startswith("row 52, message 'b\\x1b[2J\\nccc")
    assert line.endswith("': scoring failed, set aside: ValueError: no [31m")
    assert len(line) < 200


def both() -> dict[str, float]:
    return {"text": 0.0, "network": 0.0}


@pytest.mark.parametrize("rows", [[], [("a", "", None)], [("a", "raise", None)], [(None, None, "x")] * 3])
def test_a_chunk_may_have_no_message_that_can_be_scored(rows: list[tuple[str | None, str | None, str | None]]) -> None:
    scored = score_chunk(Lengths(), chunk(*rows), 0.5, both())
    assert (scored.message_ids, len(scored.rejected), len(scored.probabilities)) == ([], len(rows), 0)


def test_a_chunk_in_which_everything_fails_is_an_error_that_says_what_failed_first() -> None:
    with pytest.raises(ArtifactError, match=r"none of 11 messages can be scored.*ValueError: no"):
        score_chunk(Lengths(), chunk(*[("a", "raise", None)] * 11), 0.5, both())


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
