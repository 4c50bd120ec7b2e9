"""Measures learning from the nights: spam of other people that is caught before and after self-training.

python benchmarks/quality/nights.py path/to/SMSSpamCollection path/to/folder

The folder has labelled messages of other people, as `others` reads them: the chat, which is ham only, and sets with
spam. For each set, half of it and half of the chat are the messages of past nights, without their labels. The other
halves are the test: the share of spam that is caught where 0.5 % and 1 % of the chat is flagged.

Three variants of the nights are poisoned. They must not make the model worse than it is without self-training:

- disguised spam: 5 % of the spam is written in small letters between four messages of the chat;
- one advertisement: 1,000 copies of a spam message, each with another number;
- another language: 1,000 more messages, half of them spam, whose letters are exchanged.

The corpus itself must not lose either: in each of its five folds, a teacher learns from half of all sets.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import scipy.sparse as sp
from network import train_network
from others import SHARES, caught_at, find_chat, read_others
from protocol import ComparisonMetrics, Corpus, FloatArray, IntArray, compute_metrics, read_corpus, split_folds

from models.inference.scorer import network_logits
from models.network.character_ngrams import MIN_SQUARES, build_feature_matrix
from models.network.linear import LinearWeights
from models.network.network import ngram_vectors, recurrent_part
from models.settings import NetworkSettings, TrainingSettings
from models.statistics.calibration import Calibration, fit_calibration, to_probabilities
from models.text.encoder import TextEncoder, encode_messages, read_characters
from models.trained_model.loading import load_trained_model
from models.training.job import WeakMessages
from models.training.linear_part import fit_linear_part
from models.training.self_training.near_copies import collect_keys
from models.training.self_training.sample import TextSample
from models.training.self_training.selection import Limits, select_texts
from tasks.settings.inputs import CorpusSettings

ALLOWED_LOSS = 0.01
_POISONED_MESSAGES = 1000
_DISGUISED_SHARE = 0.05
_NETWORK_SEED = 7
# Vowels for vowels and consonants for consonants, so that the words can be spoken.
_OTHER_LANGUAGE = str.maketrans(
    "aeioubcdfghjklmnpqrstvwxyzAEIOUBCDFGHJKLMNPQRSTVWXYZ", "iouaegklpdtzvnrmbwshfcxjqyIOUAEGKLPDTZVNRMBWSHFCXJQY"
)


class Teacher:
    """A network that is trained on labelled messages alone, as the pipeline does with default settings.

    Attributes:
        training: the training part.
        validation: the validation part.
    """

    def __init__(self, corpus: Corpus, folder: Path, seed: int, held_out_folds: int | None = None) -> None:
        """Trains the network in the folder, calibrated with so many held-out folds, or loads it if it is there."""
        self._settings, self._network = replace(TrainingSettings(), seed=seed), NetworkSettings()
        changes = {"training": {"held_out_folds": held_out_folds}} if held_out_folds is not None else None
        self.training, self.validation = train_network(corpus, seed, folder, changes)
        model = load_trained_model(folder, calibrated=False)
        self._model, self._calibration = model, Calibration(**model.description["calibration"])
        self._encoder = TextEncoder(model.vocabulary, ngram_vectors(model.network))
        self._labelled_keys = collect_keys(corpus.texts)
        self._linear = self.fit_linear(None)

    def fit_linear(self, weaker: WeakMessages | None) -> LinearWeights:
        """Fits the linear part, also to messages that the teacher labelled."""
        return fit_linear_part(
            self._encoder, self.training, self._settings, self._network.ngram_buckets, weaker
        )  # fmt: skip

    def read(self, texts: Sequence[str]) -> Messages:
        """Reads what a network with another linear part computes logits from."""
        recurrent = network_logits(recurrent_part(self._model.network), encode_messages(self._encoder, texts))
        features = build_feature_matrix(read_characters(self._encoder, texts), self._network.ngram_buckets)
        return Messages(list(texts), recurrent.astype(np.float64), features)

    def logits(self, messages: Messages, linear: LinearWeights | None = None) -> FloatArray:
        """Computes the logits of a network with this recurrent part, not calibrated, which changes no order."""
        return messages.recurrent + linear_logits(messages.features, linear or self._linear)

    def select(self, nights: Messages) -> tuple[WeakMessages, dict[str, dict[str, int]]]:
        """Labels messages of the nights as SelectNightMessages does. Returns also how many are left after each step."""
        settings = CorpusSettings()
        sample = TextSample(settings.self_training_messages, self._settings.seed)
        sample.add(nights.texts, 0)
        texts, rows = sample.texts, {text: row for row, text in enumerate(nights.texts)}
        logits = self._calibration.apply(self.logits(nights)[[rows[text] for text in texts]])
        limits = Limits(
            settings.self_training_spam,
            settings.self_training_ham,
            settings.self_training_weight,
            len(self.training.labels),
        )
        selection = select_texts(texts, to_probabilities(logits), self._labelled_keys, limits)
        weak = WeakMessages([texts[row] for row in selection.rows], selection.labels, selection.weight)
        return weak, selection.counts


@dataclass(frozen=True)
class Messages:
    """Messages as a network reads them: texts, logits of the recurrent part, features of the linear part."""

    texts: list[str]
    recurrent: FloatArray
    features: sp.csr_matrix

    def select(self, rows: IntArray) -> Messages:
        """Returns the messages at the given indices."""
        return Messages([self.texts[row] for row in rows], self.recurrent[rows], self.features[rows])

    def append(self, others: Messages) -> Messages:
        """Returns these messages followed by others."""
        features = sp.vstack([self.features, others.features], format="csr")
        return Messages(
            [*self.texts, *others.texts], np.concatenate([self.recurrent, others.recurrent]), features
        )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """The result of one repetition.

    Attributes:
        name: the set of messages.
        variant: how the nights were poisoned; empty if they were not.
        seed: seed of the halves.
        before: share of the spam that is caught without self-training, at each of `SHARES`.
        after: the same with self-training.
        counts: messages that are left after each step of the selection.
        wrong: messages of the set and the chat that got the wrong label: as spam, as ham.
        poisoned: messages of the poisoned nights that got a label: as spam, as ham.
    """

    name: str
    variant: str
    seed: int
    before: list[float]
    after: list[float]
    counts: dict[str, dict[str, int]]
    wrong: tuple[int, int]
    poisoned: tuple[int, int]


def measure_nights(
    train_corpus: Corpus, others: Path, seeds: Sequence[int] = range(5), training: Path | None = None
) -> Iterator[Row]:
    """Measures self-training on the sets of a folder.

    Args:
        train_corpus: the labelled messages.
        others: the folder with the sets, one of them of ham only.
        seeds: seeds of the halves; each is a repetition.
        training: folder in which the teacher is trained, or from which it is loaded; None for a temporary one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        teacher = Teacher(train_corpus.without_duplicates(), training or Path(scratch), _NETWORK_SEED)
    corpora = read_others(others)
    chat = find_chat(corpora)
    read = {name: teacher.read(corpus.texts) for name, corpus in corpora.items()}
    for name, corpus in corpora.items():
        if name == chat:
            continue
        for seed in seeds:
            halves = Halves(corpora[chat].labels, corpus.labels, seed)
            for variant in ("", *VARIANTS):
                yield _measure(teacher, (read[chat], read[name]), halves, (name, variant))


class Halves:
    """Which messages of the chat and of a set are those of the nights, by a seed; the others are the test."""

    def __init__(self, chat_labels: IntArray, labels: IntArray, seed: int) -> None:
        self.seed = seed
        random = np.random.default_rng(seed)
        self.chat, self.others = (random.permutation(len(part)) < len(part) // 2 for part in (chat_labels, labels))
        self.labels = np.concatenate([chat_labels[self.chat], labels[self.others]])
        self.test_spam = np.flatnonzero(~self.others & (labels == 1))
        self.test_chat = np.flatnonzero(~self.chat)


def _measure(teacher: Teacher, read: tuple[Messages, Messages], halves: Halves, names: tuple[str, str]) -> Row:
    chat, others = read
    nights = chat.select(np.flatnonzero(halves.chat)).append(others.select(np.flatnonzero(halves.others)))
    labels = dict(zip(nights.texts, halves.labels.tolist(), strict=True))
    if names[1]:
        nights = VARIANTS[names[1]](teacher, nights, halves)
    weak, counts = teacher.select(nights)
    linear = teacher.fit_linear(weak)
    caught = []
    for part in (None, linear):
        spam, ham = (
            teacher.logits(messages.select(rows), part)
            for messages, rows in ((others, halves.test_spam), (chat, halves.test_chat))
        )
        caught.append([caught_at(spam, ham, share) for share in SHARES])
    given = [(label, labels.get(text)) for text, label in zip(weak.texts, weak.labels.tolist(), strict=True)]
    wrong = given.count((1, 0)), given.count((0, 1))
    poisoned = given.count((1, None)), given.count((0, None))
    return Row(*names, halves.seed, caught[0], caught[1], counts, wrong, poisoned)


def measure_folds(train_corpus: Corpus, others: Path) -> tuple[ComparisonMetrics, ComparisonMetrics]:
    """Measures the five folds of the corpus, out of fold, before and after learning from half of all sets.

    Both are calibrated on the validation part of a fold alone, which saves three of four trainings. So the figures
    before are not those of the comparison.
    """
    corpus = train_corpus.without_duplicates()
    random = np.random.default_rng(0)
    nights = [text for messages in read_others(others).values() for text in messages.texts if random.random() < 0.5]
    probabilities = np.zeros((2, len(corpus.labels)))
    for training, test in split_folds(corpus):
        with tempfile.TemporaryDirectory() as scratch:
            teacher = Teacher(corpus.select(training), Path(scratch), _NETWORK_SEED, held_out_folds=0)
        student = teacher.fit_linear(teacher.select(teacher.read(nights))[0])
        read, validation = teacher.read(corpus.select(test).texts), teacher.read(teacher.validation.texts)
        for row, linear in zip(probabilities, (None, student), strict=True):
            calibration = fit_calibration(teacher.logits(validation, linear), teacher.validation.labels)
            row[test] = to_probabilities(calibration.apply(teacher.logits(read, linear)))
    before, after = (compute_metrics(corpus.labels, row) for row in probabilities)
    return before, after


def linear_logits(features: sp.csr_matrix, weights: LinearWeights) -> FloatArray:
    """Computes the logits of the linear part, float64 [messages], from the term frequencies of messages."""
    squares = features.multiply(features) @ weights.squares.astype(np.float64)
    lengths = np.sqrt(np.maximum(squares, MIN_SQUARES))
    logits: FloatArray = features @ weights.weights.astype(np.float64) / lengths + float(weights.bias[0])
    return logits


def _disguise(teacher: Teacher, nights: Messages, halves: Halves) -> Messages:
    random = np.random.default_rng(halves.seed)
    spam, ham = (np.flatnonzero(halves.labels == label) for label in (1, 0))
    disguised = random.choice(spam, round(_DISGUISED_SHARE * len(spam)), replace=False)
    around = random.choice(ham, (len(disguised), 4))
    texts = [
        " ".join((nights.texts[a], nights.texts[b], nights.texts[row].lower(), nights.texts[c], nights.texts[d]))
        for row, (a, b, c, d) in zip(disguised, around, strict=True)
    ]
    return nights.select(np.setdiff1d(np.arange(len(nights.texts)), disguised)).append(teacher.read(texts))


def _repeat(teacher: Teacher, nights: Messages, halves: Halves) -> Messages:
    random = np.random.default_rng(halves.seed)
    text = nights.texts[random.choice(np.flatnonzero(halves.labels == 1))]
    return nights.append(teacher.read([f"{text} {number}" for number in range(_POISONED_MESSAGES)]))


def _translate(teacher: Teacher, nights: Messages, halves: Halves) -> Messages:
    random = np.random.default_rng(halves.seed)
    rows = [
        random.choice(np.flatnonzero(halves.labels == label), _POISONED_MESSAGES // 2, replace=True) for label in (0, 1)
    ]
    return nights.append(teacher.read([nights.texts[row].translate(_OTHER_LANGUAGE) for row in np.concatenate(rows)]))


VARIANTS: dict[str, Callable[[Teacher, Messages, Halves], Messages]] = {
    "disguised spam": _disguise,
    "one advertisement": _repeat,
    "another language": _translate,
}


def describe_rows(rows: Sequence[Row]) -> Iterator[str]:
    """Yields a Markdown table: for each set and variant, mean and standard deviation over the repetitions."""
    yield "| set | nights | at 0.5 %: before | after | at 1 %: before | after | labelled spam, ham | wrong | poisoned |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, variant in dict.fromkeys((row.name, row.variant) for row in rows):
        group = [row for row in rows if (row.name, row.variant) == (name, variant)]
        values = np.array([[row.before, row.after] for row in group])
        figures = [
            f"{values[:, column, share].mean():.3f} ± {values[:, column, share].std():.3f}"
            for share in range(len(SHARES))
            for column in (0, 1)
        ]
        taken = np.mean([[row.counts["balanced"][label] for label in ("spam", "ham")] for row in group], axis=0)
        wrong, poisoned = (np.mean([getattr(row, name) for row in group], axis=0) for name in ("wrong", "poisoned"))
        counts = [f"{pair[0]:.0f}, {pair[1]:.0f}" for pair in (taken, wrong, poisoned)]
        yield f"| {name} | {variant or 'as they are'} | {' | '.join(figures)} | {' | '.join(counts)} |"
    losses = [
        before - after for row in rows if row.variant for before, after in zip(row.before, row.after, strict=True)
    ]
    yield ""
    yield f"Smallest gain with poisoned nights: {-max(losses):+.3f}; a loss of {ALLOWED_LOSS} is allowed."


def describe_folds(before: ComparisonMetrics, after: ComparisonMetrics) -> str:
    """Returns a sentence on the corpus itself."""
    figures = (("MCC", "mcc"), ("recall at 0.1 % false positives", "recall_at_01"), ("PR AUC", "pr_auc"))
    changes = [
        f"{title} {getattr(before, name):.4f} before, {getattr(after, name):.4f} after" for title, name in figures
    ]
    return f"The corpus itself, five folds with half of all sets as nights: {'; '.join(changes)}."


def main() -> None:
    """Trains the teacher, and prints a line for each repetition, the table, and what the corpus itself gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the file SMSSpamCollection")
    parser.add_argument("others", type=Path, help="folder of *.tsv files with messages of other people")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="repetitions (default: 0 to 4)")
    parser.add_argument("--training", type=Path, help="folder for the teacher, which is kept and used again")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    try:
        read_others(options.others)
    except (OSError, ValueError) as error:
        sys.exit(f"nights: {options.others}: {error}")
    rows = []
    for row in measure_nights(read_corpus(options.corpus), options.others, options.seeds, options.training):
        rows.append(row)
        before, after = (" ".join(f"{share:.4f}" for share in shares) for shares in (row.before, row.after))
        print(
            f"{row.name}, {row.variant or 'as they are'}, seed {row.seed}: {before} before, {after} after", flush=True
        )
    print("\n".join(describe_rows(rows)))
    print(describe_folds(*measure_folds(read_corpus(options.corpus), options.others)))


if __name__ == "__main__":
    main()
