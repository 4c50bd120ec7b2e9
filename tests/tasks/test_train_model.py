"""A training that starts from earlier weights, through the real command: what it says and records, and its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from chain import luigi
from spamscore_command import run_process


def read_json(folder: Path, pattern: str) -> dict[str, Any]:
    (path,) = folder.glob(pattern)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_a_training_starts_from_a_version_with_a_larger_vocabulary_and_says_so(trained: Path) -> None:
    before = {path.name for path in trained.glob("artifacts/training/*")}
    old = read_json(trained, "artifacts/training/*/model.json")["vocabulary_size"]
    done = luigi(
        trained, "ExportModel", "--training-start-from", "version:1", "--training-epochs", "2",
        "--vocabulary-min-count", "1",
    )  # fmt: skip
    assert done.code == 0, done.output
    (name,) = {path.name for path in trained.glob("artifacts/training/*")} - before
    model = read_json(trained, f"artifacts/training/{name}/model.json")
    start, new = model["start"], model["vocabulary_size"]
    assert new > old
    assert (start["source"], start["split"]) == ("version:1", "same")
    assert (start["token_rows_taken"], start["token_rows_fresh"]) == (old, new - old)
    assert {"embedding/words", "logit/kernel"} <= set(start["taken"])
    assert start["fitted"] == ["linear/weights", "linear/squares", "linear/bias"]
    assert (
        start["weights_sha256"]
        == read_json(trained, "artifacts/exports/spam_ham/1/manifest.json")["trained"]["weights_sha256"]
    )
    assert f"{old:,} of {new:,} rows of embedding/words, the other {new - old:,} start fresh" in done.output
    assert "fitted to the training part: linear/weights, linear/squares, linear/bias" in done.output
    assert read_json(trained, f"artifacts/training/{name}/manifest.json")["start"] == start
    if not (version := trained / "artifacts" / "exports" / "spam_ham" / "2").exists():  # the gate refused the model
        assert "refused" in done.last_line
        return
    card = (version / "model_card.md").read_text(encoding="utf-8")
    assert re.search(r"### Start of the training\n.*\| Source \| version:1 \|", card, re.DOTALL)
    assert f"| {old}; fresh: {new - old} |" in card
    assert read_json(version, "manifest.json")["trained"]["start"] == start


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--training-start-from", "version:9"), 40, "start_from = version:9: model version 9: not in"),
        (("--training-start-from", "w.npz"), 40, "start_from = w.npz: expected version:N of an exported version"),
        (
            ("--training-start-from", "artifacts/exports/spam_ham/1/assets.extra/weights.npz"), 40,
            "its weights are calibrated",
        ),
        (
            ("--training-start-from", "version:1", "--training-start-variables", "embeding/*"), 40,
            "embeding/*: expected a pattern of variables that both version:1 and the network have",
        ),
        (
            ("--training-start-from", "version:1", "--network-rnn-units", "9"), 30,
            "recurrent/gru_cell/kernel has the shape (8, 24), and recurrent/gru_cell/kernel of the network has (8, 27)",
        ),
        (("--training-start-variables", "embedding/*"), 40, "expected a source in start_from, received none"),
    ],
    ids=["no such version", "no such file", "calibrated", "pattern", "shape", "variables without a source"],
)  # fmt: skip
def test_a_start_that_cannot_be_used_is_one_line_and_the_exit_code_of_its_kind(
    trained: Path, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    done = luigi(trained, "TrainModel", *arguments)
    assert done.code == code, done.output
    assert expected in done.last_line
    assert "Traceback" not in done.output


def test_the_settings_are_listed_with_their_defaults(trained: Path) -> None:
    listed = run_process("config", "--defaults", cwd=trained).stdout
    assert re.search(r"^start_from =$", listed, re.MULTILINE)
    assert re.search(r"^start_variables = all$", listed, re.MULTILINE)
