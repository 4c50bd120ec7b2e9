"""Tests of `make quality`: the comparison runs, the document has its tables, and the protocol is the published one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "quality"
SAMPLE = ROOT / "pipeline" / "sample" / "corpus.csv"


@pytest.fixture(autouse=True)
def _benchmark_modules_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def run_quality(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER), *map(str, arguments)],
        capture_output=True, text=True, timeout=500, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_comparison_writes_a_document_and_its_plot(tmp_path: Path) -> None:
    with SAMPLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:240]
    corpus = tmp_path / "SMSSpamCollection"
    corpus.write_text("".join(f"{row['label']}\t{' '.join(row['text'].split())}\n" for row in rows), encoding="utf-8")
    small = [
        "--change", "training.epochs=1", "--change", "training.held_out_folds=0", "--change", "network.rnn_units=2",
        "--change", "network.embedding_size=2", "--change", "network.ngram_buckets=512",
    ]  # fmt: skip
    done = run_quality(corpus, "--seeds", 3, *small, "--write", tmp_path / "quality.md")
    assert done.returncode == 0, done.stderr
    document = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "with {" in document.split("\n\n")[2], "expected the changed settings in the document"
    assert "| the network, seed 3 |" in document
    for title in ("Summary", "All models and seeds", "Attacks", "Recent messages", "Upper bound"):
        assert f"## {title}\n" in document
    assert (tmp_path / "quality.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert "## Summary" in done.stdout


def test_a_missing_corpus_is_an_error_that_says_how_to_fix_it(tmp_path: Path) -> None:
    done = run_quality(tmp_path / "none")
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert "make quality CORPUS=" in done.stderr


def test_the_first_of_messages_that_differ_only_in_white_space_is_kept() -> None:
    from protocol import Corpus

    corpus = Corpus(["b  a", "a", "b a", "a "], np.array([1, 0, 0, 1]))
    assert corpus.without_duplicates().texts == ["b  a", "a"]
    assert corpus.without_duplicates().labels.tolist() == [1, 0]


def test_almeidas_split_trains_on_the_first_1674_messages_of_the_published_corpus() -> None:
    from protocol import Corpus, split_almeida

    training, test = split_almeida(Corpus([""] * 5574, np.zeros(5574, np.int64)))
    assert (len(training), len(test), int(test[0])) == (1674, 3900, 1674)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("leet", "Fr33 3n7ry 70 w1n £5"),
        ("homoglyph", "Frее еntrу tо wіn £5"),
        ("zero width", "Fr\u200bee\u200b e\u200bnt\u200bry\u200b t\u200bo wi\u200bn £5"),
        ("spaced", "F r e e e n t r y to win £5"),
    ],
)
def test_attacks_rewrite_as_published(attack: str, expected: str) -> None:
    from protocol import ATTACKS

    assert ATTACKS[attack]("Free entry to win £5") == expected
