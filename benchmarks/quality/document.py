"""Writes docs/quality.md: tables, plot, method, and what the network reads."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baselines import SVM
from comparison import NETWORK, ModelScores
from others import CHAT_FLAGGED, HAM_BLOCKED_SHARE, compute_row, find_chat, list_targets
from plot import draw
from protocol import ATTACKS, Corpus, FloatArray, IntArray, compute_metrics
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from models.statistics.metrics import recall_at

HERE = Path(__file__).resolve().parent
NOTICES = ("otp", "delivery", "bank", "appointment", "service")
# Targets for the mean over the seeds.
TARGETS = {"mcc": 0.967, "f1": 0.970, "recall_at_01": 0.935, "pr_auc": 0.988, "calibration_error": 0.010}
TARGET_ALMEIDA, TARGET_CAUGHT, TARGET_BLOCKED, TARGET_CHAT = 0.965, 0.94, 0.005, 0.004
TITLES = {
    "mcc": "MCC",
    "f1": "spam F1",
    "accuracy": "accuracy",
    "recall_at_01": "recall at 0.1 % false positives",
    "recall_at_05": "recall at 0.5 %",
    "pr_auc": "PR AUC",
    "roc_auc": "ROC AUC",
    "calibration_error": "calibration error (ECE)",
}

Run = tuple[str, int]


@dataclass(frozen=True)
class Messages:
    """The messages of the comparison.

    Attributes:
        corpus: the corpus with duplicates.
        distinct: the corpus without duplicates.
        recent: recent messages: label, kind, text.
        others: messages of other people by set; empty if none were given.
    """

    corpus: Corpus
    distinct: Corpus
    recent: Sequence[dict[str, str]]
    others: dict[str, Corpus]


def write_document(
    path: Path, messages: Messages, scores: dict[Run, ModelScores], changes: dict[str, Any], nights: str
) -> None:
    """Writes the document and its plot to the same folder.

    Args:
        path: the document.
        messages: the messages of the comparison.
        scores: scores by model and seed.
        changes: changed settings by section and key.
        nights: the section on learning from the nights; may be empty.
    """
    corpus, distinct, recent = messages.corpus, messages.distinct, messages.recent
    plot = path.with_suffix(".svg")
    draw(plot, distinct.labels, scores)
    parts = [
        _head(corpus, distinct, scores, changes),
        _summary(corpus, distinct, scores, recent),
        f"![Precision over recall, and calibration]({plot.name})\n",
        *([_other_people(messages.others, scores), nights] if messages.others else []),
        _all_runs(corpus, distinct, scores),
        _attacks(distinct, scores),
        _recent_messages(distinct, scores, recent),
        _kinds_left_out(scores),
        _ceiling(distinct, scores),
        (HERE / "method.md").read_text(encoding="utf-8"),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _head(corpus: Corpus, distinct: Corpus, scores: dict[Run, ModelScores], changes: dict[str, Any]) -> str:
    seconds = [seconds for run, model in scores.items() if run[0] == NETWORK for seconds in model.seconds]
    settings = f" with {json.dumps(changes)}" if changes else " with the default settings"
    return (
        "# Model quality\n\n"
        "    make quality CORPUS=path/to/SMSSpamCollection OTHERS=folder\n\n"
        f"wrote this file on {datetime.datetime.now(datetime.UTC).date().isoformat()}. It trains the network as the "
        f"pipeline does{settings}, and the classical models, on the SMS Spam Collection "
        f"({len(corpus.labels):,} messages; {len(distinct.labels):,} of them distinct, {int(distinct.labels.sum())} "
        f"spam). Training took {np.median(seconds):.0f} s per fold on one core (median; {min(seconds):.0f} to "
        f"{max(seconds):.0f}), with two trainings at the same time.\n"
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _networks(scores: dict[Run, ModelScores]) -> list[ModelScores]:
    return [model for run, model in scores.items() if run[0] == NETWORK]


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _describe_target(value: float, target: float, lower_is_better: bool = False) -> str:
    return "reached" if (value <= target if lower_is_better else value >= target) else "not reached"


def _summary(corpus: Corpus, distinct: Corpus, scores: dict[Run, ModelScores], recent: Sequence[dict[str, str]]) -> str:
    labels = distinct.labels
    svm, networks = scores[SVM, 0], _networks(scores)
    svm_metrics = compute_metrics(labels, svm.clean)
    network_metrics = [compute_metrics(labels, network.clean) for network in networks]
    lines = [
        "## Summary",
        "",
        _row(
            "",
            "character SVM",
            f"the network, mean of seeds ({len(networks)})",
            "range",
            "target",
            "",
        ),
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, target in TARGETS.items():
        values = [getattr(metrics, name) for metrics in network_metrics]
        spread = f"{min(values):.4f} to {max(values):.4f}"
        result = _describe_target(_mean(values), target, lower_is_better=name == "calibration_error")
        lines.append(
            _row(
                TITLES[name],
                f"{getattr(svm_metrics, name):.4f}",
                f"**{_mean(values):.4f}**",
                spread,
                f"{target:.3f}",
                result,
            )
        )
    almeida = [_almeida_mcc(corpus, network) for network in networks]
    lines.append(
        _row(
            "Almeida's split: MCC", f"{_almeida_mcc(corpus, svm):.4f}", f"**{_mean(almeida):.4f}**",
            f"{min(almeida):.4f} to {max(almeida):.4f}", f"{TARGET_ALMEIDA:.3f}",
            _describe_target(_mean(almeida), TARGET_ALMEIDA),
        )
    )  # fmt: skip
    for attack in ATTACKS:
        for title, label, target in (("spam caught", 1, TARGET_CAUGHT), ("ham caught", 0, TARGET_BLOCKED)):
            shares = [_share(network.attacked[attack], labels == label) for network in networks]
            lines.append(
                _row(
                    f"{attack}: {title}", f"{_share(svm.attacked[attack], labels == label):.4f}",
                    f"**{_mean(shares):.4f}**", f"{min(shares):.4f} to {max(shares):.4f}", f"{target:.2f}",
                    _describe_target(_mean(shares), target, lower_is_better=not label),
                )
            )  # fmt: skip
    chat = _group_by_kind(recent)["abroad"]
    shares = [_mean([_share(probabilities, chat) for probabilities in network.recent]) for network in networks]
    svm_share = _mean([_share(probabilities, chat) for probabilities in svm.recent])
    lines.append(
        _row(
            f"chat from other countries flagged ({chat.sum()} messages)",
            f"{svm_share:.4f}", f"**{_mean(shares):.4f}**",
            f"{min(shares):.4f} to {max(shares):.4f}", f"{TARGET_CHAT:.3f}",
            _describe_target(_mean(shares), TARGET_CHAT, lower_is_better=True),
        )
    )  # fmt: skip
    return "\n".join([*lines, ""])


def _share(probabilities: FloatArray, rows: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    return float((probabilities[rows] >= 0.5).mean())


def _almeida_mcc(corpus: Corpus, model: ModelScores) -> float:
    labels = corpus.labels[len(corpus.labels) - len(model.almeida) :]
    return float(matthews_corrcoef(labels, model.almeida >= 0.5))


def _all_runs(corpus: Corpus, distinct: Corpus, scores: dict[Run, ModelScores]) -> str:
    lines = [
        "## All models and seeds",
        "",
        (
            "Five folds without duplicates, probabilities pooled, threshold one half. The last columns are the flagged "
            "ham and the missed spam at this threshold, and the MCC on Almeida's split."
        ),
        "",
        _row("model", *TITLES.values(), "flagged ham", "missed spam", "Almeida"),
        "| --- |" + " ---: |" * (len(TITLES) + 3),
    ]
    for (name, seed), model in scores.items():
        metrics = compute_metrics(distinct.labels, model.clean)
        title = f"{name}, seed {seed}" if name == NETWORK else name
        cells = [f"{getattr(metrics, key):.4f}" for key in TITLES]
        almeida_mcc = f"{_almeida_mcc(corpus, model):.4f}"
        lines.append(_row(title, *cells, int(metrics.blocked), int(metrics.missed), almeida_mcc))
    networks = _networks(scores)
    all_metrics = [compute_metrics(distinct.labels, network.clean) for network in networks]
    means = [f"**{_mean([getattr(metrics, key) for metrics in all_metrics]):.4f}**" for key in TITLES]
    counts = [f"{_mean([getattr(metrics, key) for metrics in all_metrics]):.1f}" for key in ("blocked", "missed")]
    almeida = _mean([_almeida_mcc(corpus, network) for network in networks])
    lines.append(_row(f"**{NETWORK}, mean**", *means, *counts, f"**{almeida:.4f}**"))
    ham = _mean([network.flagged[distinct.labels == 0].mean() for network in networks])
    spam = _mean([network.flagged[distinct.labels == 1].mean() for network in networks])
    lines += [
        "",
        (
            "`[scoring] threshold = auto` finds a threshold with the training messages, for 0.2 % of the ham. At this "
            f"threshold the network flags {ham:.2%} of the ham and {spam:.1%} of the spam in the test folds."
        ),
        "",
    ]
    return "\n".join(lines)


def _other_people(others: dict[str, Corpus], scores: dict[Run, ModelScores]) -> str:
    rows = {run: compute_row(others, model.others) for run, model in scores.items()}
    columns = list(next(iter(rows.values())))
    counts = ", ".join(f"{name} {len(some.labels):,} ({some.labels.sum():,} spam)" for name, some in others.items())
    chat, flagged = find_chat(others), [model.others_flagged for model in _networks(scores)]
    lines = [
        "## Messages of other people",
        "",
        (
            f"Every model is trained on the whole corpus and scores messages of other people: {counts}. A column is "
            f"the spam of a set that is caught where that share of {chat} is flagged; the last one is the share of "
            f"{chat} that is flagged at one half."
        ),
        "",
        _row("model", *columns),
        "| --- |" + " ---: |" * len(columns),
        *(
            _row(f"{name}, seed {seed}" if name == NETWORK else name, *(f"{row[column]:.4f}" for column in columns))
            for (name, seed), row in rows.items()
        ),
    ]
    networks = [row for (name, _), row in rows.items() if name == NETWORK]
    values = {column: [row[column] for row in networks] for column in columns}
    targets = list_targets(columns)
    lines += [
        _row(f"**{NETWORK}, mean**", *(f"**{_mean(values[column]):.4f}**" for column in columns)),
        _row("range", *(f"{min(values[column]):.4f} to {max(values[column]):.4f}" for column in columns)),
        _row("target", *(_describe_column(values[column], targets.get(column), column) for column in columns)),
        "",
        (
            f"`[scoring] threshold = auto`, fitted to the corpus for {100 * HAM_BLOCKED_SHARE:g} % of the ham, flags "
            f"{100 * _mean(flagged):.2f} % of {chat} ({100 * min(flagged):.2f} to {100 * max(flagged):.2f} %)."
        ),
        "",
    ]
    return "\n".join(lines)


def _describe_column(values: Sequence[float], target: float | None, column: str) -> str:
    if target is None:
        return ""
    return f"{target:g}: {_describe_target(_mean(values), target, lower_is_better=column == CHAT_FLAGGED)}"


def _attacks(distinct: Corpus, scores: dict[Run, ModelScores]) -> str:
    lines = [
        "## Attacks",
        "",
        "Each attack rewrites every message of the test folds. The cells are spam caught / ham flagged at one half.",
        "",
        _row("model", "no attack", *ATTACKS),
        "| --- |" + " ---: |" * (len(ATTACKS) + 1),
    ]
    spam = distinct.labels == 1
    for (name, seed), model in scores.items():
        title = f"{name}, seed {seed}" if name == NETWORK else name
        variants = [model.clean, *(model.attacked[attack] for attack in ATTACKS)]
        cells = [f"{_share(variant, spam):.3f} / {_share(variant, ~spam):.4f}" for variant in variants]
        lines.append(_row(title, *cells))
    return "\n".join([*lines, ""])


def _group_by_kind(recent: Sequence[dict[str, str]]) -> dict[str, Any]:
    spam = np.array([row["label"] == "spam" for row in recent])
    notice = ~spam & np.isin([row["kind"] for row in recent], NOTICES)
    chat = ~spam & ~notice
    # The corpus comes from Britain and Singapore.
    abroad = chat & ~np.isin([row["kind"] for row in recent], ("uk", "singapore", "chat"))
    return {"spam": spam, "notice": notice, "chat": chat, "abroad": abroad}


def _recent_messages(distinct: Corpus, scores: dict[Run, ModelScores], recent: Sequence[dict[str, str]]) -> str:
    kinds = _group_by_kind(recent)
    lines = [
        "## Recent messages",
        "",
        (
            f"{len(recent)} messages written for this comparison (`benchmarks/quality/messages_of_today.csv`): "
            f"{kinds['spam'].sum()} smishing messages, {kinds['notice'].sum()} notices of banks, parcels and one-time "
            f"passwords, {kinds['chat'].sum()} chat messages from a dozen countries. The authors of the model wrote "
            "them, so the columns compare models and are not a forecast. Each model uses the threshold at which it "
            "flags 0.5 % of the ham of the corpus. The last column does not depend on a threshold: it is the spam "
            "caught when 5 % of these ham messages are flagged."
        ),
        "",
        _row("model", "spam caught", "chat flagged", "notices flagged", "ROC AUC", "spam caught at 5 % of the ham"),
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, seed), model in scores.items():
        title = f"{name}, seed {seed}" if name == NETWORK else name
        ham = np.sort(model.clean[distinct.labels == 0])[::-1]
        threshold = ham[int(0.005 * len(ham))]
        shares = [
            _mean([float((probabilities[rows] > threshold).mean()) for probabilities in model.recent])
            for rows in (kinds["spam"], kinds["chat"], kinds["notice"])
        ]
        spam = kinds["spam"]
        roc = _mean([float(roc_auc_score(spam, probabilities)) for probabilities in model.recent])
        caught = _mean([float(recall_at(spam.astype(int), scored, 0.05) or 0.0) for scored in model.recent])
        lines.append(_row(title, *(f"{value:.3f}" for value in (*shares, roc, caught))))
    return "\n".join([*lines, ""])


def _kinds_left_out(scores: dict[Run, ModelScores]) -> str:
    runs = {run: model for run, model in scores.items() if model.kinds}
    counts = {kind: int(labels.sum()) for kind, (labels, _) in next(iter(runs.values())).kinds.items()}
    lines = [
        "## Kinds of spam left out of training",
        "",
        (
            "All spam of one kind is left out of training. The cells are the share of it that is caught when 0.5 % of "
            "the ham is flagged. A kind is defined by words (`benchmarks/quality/protocol.py`)."
        ),
        "",
        _row("model", *(f"{kind} ({count})" for kind, count in counts.items())),
        "| --- |" + " ---: |" * len(counts),
    ]
    for (name, seed), model in runs.items():
        title = f"{name}, seed {seed}" if name == NETWORK else name
        caught = [recall_at(labels, probabilities, 0.005) or 0.0 for labels, probabilities in model.kinds.values()]
        lines.append(_row(title, *(f"{share:.3f}" for share in caught)))
    return "\n".join([*lines, ""])


def _ceiling(distinct: Corpus, scores: dict[Run, ModelScores]) -> str:
    labels = distinct.labels
    wrong = np.all([(model.clean >= 0.5) != labels for model in scores.values()], axis=0)
    best = [_best_mcc(labels, model.clean) for model in (scores[SVM, 0], *_networks(scores))]
    decisions = labels.astype(bool) ^ wrong
    return (
        "## Upper bound\n\n"
        f"{int(wrong.sum())} messages are misclassified by every model and every seed above "
        f"({int((wrong & (labels == 1)).sum())} of them spam). A model with only these errors would have an MCC of "
        f"{matthews_corrcoef(labels, decisions):.4f}; five more errors cost about 0.004. With the best threshold for "
        f"the test messages, which is not known in practice, the SVM would reach {best[0]:.4f} and the network "
        + ", ".join(f"{mcc:.4f}" for mcc in best[1:])
        + ".\n"
    )


def _best_mcc(labels: IntArray, probabilities: FloatArray) -> float:
    highest = np.sort(probabilities)[::-1][: 2 * int(labels.sum())]
    return max(float(matthews_corrcoef(labels, probabilities >= threshold)) for threshold in np.unique(highest))
