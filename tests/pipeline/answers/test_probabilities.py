"""Predictions for single messages, and reading messages from a pipe or file."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.inference.scorer import Scores
from pipeline.answers import probabilities


class FailingScorer:
    """Gives every message the same score, and fails on the message "bad"."""

    def score(self, texts: Sequence[str]) -> Scores:
        if "bad" in texts:
            raise ValueError("cannot score this")
        return Scores(np.full(len(texts), 0.75), 0.0, 0.0)


def test_a_message_that_cannot_be_scored_has_no_probability_and_the_others_have_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    predictions = probabilities.LoadedModel(3, FailingScorer(), 0.5).predict(["one", " ", "bad", "two"])  # type: ignore[arg-type]
    assert [prediction.spam_probability for prediction in predictions] == [0.75, None, None, 0.75]
    assert [prediction.flagged for prediction in predictions] == [True, None, None, True]
    assert [record.getMessage() for record in caplog.records] == [
        "message 3 cannot be scored: ValueError: cannot score this"
    ]


def test_bytes_of_an_argument_that_are_not_utf8_are_replaced() -> None:
    assert probabilities.decode_argument("caf\udce9 ☕") == "caf\ufffd ☕"


def test_lines_of_a_pipe_are_yielded_as_they_arrive() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream:
        batches = probabilities.read_line_batches(stream)
        os.write(write, b"one\ntwo\nthr")
        assert next(batches) == ["one", "two"]
        os.write(write, b"ee\n")
        assert next(batches) == ["three"]
        os.write(write, b"four")
        os.close(write)
        assert list(batches) == [["four"]]


def test_a_file_is_read_in_full_batches_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "messages").write_bytes(b"x\n" * 25_000)
    with open(tmp_path / "messages", "rb") as stream:
        assert [len(batch) for batch in probabilities.read_line_batches(stream)] == [10_000, 10_000, 5_000]
    assert [len(batch) for batch in probabilities.read_line_batches(io.BytesIO(b"x\n" * 25_000))] == [
        10_000,
        10_000,
        5_000,
    ]


def test_a_line_that_is_too_long_is_cut_and_the_next_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "_MAX_LINE_BYTES", 100_000)
    stream = io.BytesIO(b"a" * 250_000 + b"\nnext\n")
    assert [len(line) for batch in probabilities.read_line_batches(stream) for line in batch] == [100_000, 4]
