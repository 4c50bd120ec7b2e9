"""Tests of the measurement of nights: its figures, its poisoned nights, and its error messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "quality"


@pytest.fixture(autouse=True)
def _benchmark_modules_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


class EchoTeacher:
    """Reads messages without a network."""

    def read(self, texts: list[str]):
        from nights import Messages

        return Messages(list(texts), np.zeros(len(texts)), sp.csr_matrix((len(texts), 4)))


def make_nights():
    from nights import Halves

    halves = Halves(np.zeros(80, np.int64), np.arange(80) % 2, 3)
    texts = [f"{'win' if label else 'mum'} {number}" for number, label in enumerate(halves.labels)]
    return EchoTeacher().read(texts), halves


def test_the_halves_are_disjoint_and_differ_with_the_seed() -> None:
    from nights import Halves

    labels = np.arange(100) % 2
    first, second = (Halves(np.zeros(40, np.int64), labels, seed) for seed in (1, 2))
    assert first.chat.sum() == 20
    assert first.others.sum() == 50
    assert not first.others[first.test_spam].any()
    assert (labels[first.test_spam] == 1).all()
    assert (first.others != second.others).any()


def test_disguised_spam_replaces_spam_of_the_nights() -> None:
    from nights import VARIANTS

    nights, halves = make_nights()
    disguised = VARIANTS["disguised spam"](EchoTeacher(), nights, halves).texts
    spam = int(halves.labels.sum())
    assert len(disguised) == len(nights.texts)
    (text,) = disguised[-round(0.05 * spam) :]
    assert [word for word in text.split() if word.isalpha()] == ["mum", "mum", "win", "mum", "mum"]


def test_an_advertisement_and_another_language_are_added() -> None:
    from nights import VARIANTS

    nights, halves = make_nights()
    campaign = VARIANTS["one advertisement"](EchoTeacher(), nights, halves).texts[len(nights.texts) :]
    assert len(set(campaign)) == 1000
    assert len({text.rsplit(" ", 1)[0] for text in campaign}) == 1
    foreign = VARIANTS["another language"](EchoTeacher(), nights, halves).texts[len(nights.texts) :]
    assert len(foreign) == 1000
    assert not any("win" in text or "mum" in text for text in foreign)


def test_a_folder_without_a_set_of_ham_only_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "nights.py"), str(tmp_path / "corpus"), str(tmp_path)],
        capture_output=True, text=True, timeout=500, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "expected one file *.tsv with ham only" in done.stderr
