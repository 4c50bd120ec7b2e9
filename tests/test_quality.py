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


@pytest.mark.slow
def test_the_comparison_writes_a_document_and_its_plot(tmp_path: Path) -> None:
    with SAMPLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:240]
    corpus = tmp_path / "SMSSpamCollection"
    corpus.write_text("".join(f"{row['label']}\t{' '.join(row['text'].split())}\n" for row in rows), encoding="utf-8")
    small = [
        "--change", "training.epochs=1", "--change", "training.held_out_folds=0", "--change", "network.rnn_units=2",
        "--change", "network.embedding_size=2", "--change", "network.ngram_buckets=512",
    ]  # fmt: skip
    others = tmp_path / "others"
    others.mkdir()
    (others / "chat.tsv").write_text("ham\tsee you at lunch\nham\tok later\n", encoding="utf-8")
    (others / "parcels.tsv").write_text("spam\tyour parcel waits, pay £1\nham\tthe parcel came\n", encoding="utf-8")
    more = ["--others", others, "--nights", 0, "--write", tmp_path / "quality.md"]
    done = run_quality(corpus, "--seeds", 3, *small, *more)
    assert done.returncode == 0, done.stderr
    document = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "with {" in document.split("\n\n")[2], "expected the changed settings in the document"
    assert "| the network, seed 3 |" in document
    assert "parcels 2 (1 spam)" in document
    assert "| model | parcels, 0.5 % | parcels, 1 % | chat flagged |" in document
    for title in (
        "Summary",
        "Messages of other people",
        "All models and seeds",
        "Attacks",
        "Recent messages",
        "Upper bound",
    ):
        assert f"## {title}\n" in document
    assert (tmp_path / "quality.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert "## Summary" in done.stdout


def test_a_missing_corpus_is_an_error_that_says_how_to_fix_it(tmp_path: Path) -> None:
    done = run_quality(tmp_path / "none")
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert "make quality CORPUS=" in done.stderr


@pytest.mark.parametrize("names", [[], ["spam"], ["chat", "more_chat"]])
def test_other_people_need_exactly_one_file_with_ham_only(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        label = "spam" if name == "spam" else "ham"
        (tmp_path / f"{name}.tsv").write_text(f"{label}\ta\n", encoding="utf-8")
    done = run_quality(SAMPLE, "--others", tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}: expected one file *.tsv with ham only" in done.stderr


def test_spam_of_others_counts_as_caught_above_what_a_share_of_the_chat_reaches() -> None:
    from others import compute_row
    from protocol import Corpus

    sets = {"chat": Corpus([""] * 200, np.zeros(200, np.int64)), "spam": Corpus([""] * 4, np.array([1, 1, 1, 0]))}
    chat = np.linspace(0, 0.995, 200)
    row = compute_row(sets, {"chat": chat, "spam": np.array([0.2, 0.9925, 0.999, 1.0])})
    assert row == {
        "spam, 0.5 %": pytest.approx(2 / 3),
        "spam, 1 %": pytest.approx(2 / 3),
        "chat flagged": pytest.approx(0.5, abs=0.005),
    }


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
