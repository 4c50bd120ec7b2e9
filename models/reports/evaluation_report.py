"""Renders the evaluation report: one HTML file about one model on one set of labelled messages.

The file needs no other file, and its Content-Security-Policy forbids every request. Messages are untrusted text: they
are escaped, invisible characters and those that change the text direction are written as [U+…], and long messages are
cut. Figures come from `metrics`, plots from `plots`, text from `templates/evaluation.html`, layout from `pages`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.evaluation.factors import Group
from models.evaluation.gate import Comparison, Flip, Flips, Interval, Verdict
from models.reports.pages import load_template, quote_message, spell_out
from models.statistics.arrays import validate_scores
from models.statistics.calibration import Threshold
from models.statistics.metrics import Metrics, metric_descriptions

if TYPE_CHECKING:
    from models.evaluation.explanation import Explanation

MAX_HARDEST = 20  # messages in each list of the hardest ones
MAX_WORDS = 6  # words listed for each mistake
MAX_WORD_CHARACTERS = 40  # characters shown of each of these words


@dataclass(frozen=True)
class HardMessage:
    """One message in a list of the hardest messages.

    Attributes:
        parts: the text as alternating plain text and [U+…] marks, so that a page can highlight the marks.
        hidden_characters: number of characters that were cut off.
        probability: its spam probability.
        wrong: whether the verdict is wrong.
        moved: the words that changed the score most, and their changes in logits.
        decisive: words without which the verdict would be right.
        unmoved: whether the message was explained but no word changed the score.
    """

    parts: tuple[str, ...]
    hidden_characters: int
    probability: float
    wrong: bool
    moved: tuple[tuple[str, float], ...] = ()
    decisive: tuple[str, ...] = ()
    unmoved: bool = False


@dataclass(frozen=True)
class FlippedMessage:
    """One message whose verdict flips. `parts` and `hidden_characters` are as in `HardMessage`.

    `right` is whether the new verdict is right; None if the message has no label.
    """

    parts: tuple[str, ...]
    hidden_characters: int
    before: float
    now: float
    tag: str
    right: bool | None


@dataclass(frozen=True)
class FlipTable:
    """A sentence about the flips on a set of messages, and the example messages."""

    sentence: str
    messages: list[FlippedMessage]


def render_evaluation(
    *,
    model: str,
    fingerprint: str,
    verdict: Verdict,
    metrics: Metrics,
    threshold: Threshold,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    texts: Sequence[str],
    history: Sequence[Mapping[str, float | None]],
    facts: Mapping[str, Mapping[str, object]],
    compared: Sequence[Comparison] = (),
    compared_with_teacher: Sequence[Comparison] = (),
    confidence: float = 0.95,
    groups: Sequence[Group] = (),
    flips: Sequence[Flips | str] = (),
    in_service: Metrics | None = None,
    in_service_version: int | None = None,
    explain: Callable[[Sequence[str]], Sequence[Explanation]] | None = None,
) -> str:
    """Renders the evaluation report. The same input gives the same text; pass a date in `facts` to show one.

    Args:
        model: name of the model.
        fingerprint: fingerprint of the training, which is the name of its folder.
        verdict: result of `gate.judge`.
        metrics: metrics of the model on these messages.
        threshold: the threshold, and how it was chosen.
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        texts: [messages]; any characters.
        history: one mapping for each epoch, as in `plots.draw_history`.
        facts: tables of settings, counts and fingerprints: values by name, by title.
        compared: result of `gate.compare`.
        compared_with_teacher: the same for a self-trained model and its teacher.
        confidence: confidence of the intervals in `compared` and `groups`.
        groups: result of `factors.measure_groups`.
        flips: flips on sets of messages, or the reason why they could not be counted.
        in_service: metrics of the version in service on the same messages.
        in_service_version: number of the version in service.
        explain: explains the scores of messages; called for the worst mistakes.

    Raises:
        ValueError: labels, probabilities and texts have different lengths, a value is out of range, or the metrics are
            those of other messages.
    """
    spam, scores = validate_scores(labels, probabilities)
    _check_lengths(metrics, len(spam), len(texts))
    return load_template("evaluation.html").render(
        model=model,
        fingerprint=fingerprint,
        verdict=verdict,
        passed=_passed_sentence(verdict),
        sentences=[*headline(metrics), threshold.description],
        comparisons=list(_comparison_tables(compared, compared_with_teacher, in_service_version)),
        confidence=f"{confidence * 100:g} %",
        factors=_factor_tables(groups),
        flips=[entry if isinstance(entry, str) else _flip_table(entry) for entry in flips],
        version=in_service_version,
        rows=_figure_rows(metrics, in_service),
        has_comparison=in_service is not None,
        plots=_draw_all(spam, scores, metrics, history),
        missed=hardest_messages(spam, scores, texts, metrics.threshold, list_spam=True, explain=explain),
        flagged=hardest_messages(spam, scores, texts, metrics.threshold, list_spam=False, explain=explain),
        facts=facts,
    )


def _passed_sentence(verdict: Verdict) -> str:
    """Returns how many checks an approved model passed. The page lists the checks further down."""
    made = [check for check in verdict.checks if check.passed is not None]
    skipped = len(verdict.checks) - len(made)
    note = f"; {skipped} could not be made" if skipped else ""
    return f"{len(made)} of {len(verdict.checks)} checks passed{note}." if made else ""


def _factor_tables(groups: Sequence[Group]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of groups by factor: the name, and for spam and ham the count, share and interval as text."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        cells = [
            (f"{group.spam_caught:,} of {group.spam:,}", *_format_share(group.recall)),
            (f"{group.ham_flagged:,} of {group.ham:,}", *_format_share(group.ham_wrongly_flagged)),
        ]
        tables.setdefault(group.factor, []).append({"name": group.name, "cells": cells})
    return tables


def _format_share(interval: Interval | None) -> tuple[str, str]:
    """Formats a share and its interval."""
    if interval is None:
        return "", ""
    return f"{interval.value * 100:.1f} %", f"{interval.low * 100:.1f} to {interval.high * 100:.1f} %"


def _check_lengths(metrics: Metrics, labels: int, texts: int) -> None:
    if not texts == labels == metrics.messages:
        raise ValueError(
            "Expected as many texts as labels, and the metrics of the same messages. "
            f"Received: {texts} texts, {labels} labels, metrics of {metrics.messages} messages"
        )


def headline(metrics: Metrics) -> list[str]:
    """Summarizes the metrics in plain sentences."""
    if not metrics.messages:
        return ["No labelled message was scored, so there are no figures."]
    caught = f"of {_count(metrics.spam, 'spam message')} {_was(metrics.true_positives)} caught"
    flagged = f"of {_count(metrics.ham, 'ham message')} {_was(metrics.false_positives)} flagged wrongly"
    parts = [caught if metrics.spam else "there was no spam", flagged if metrics.ham else "there was no ham"]
    sentences = ["; ".join(parts).capitalize() + "."]
    if metrics.recall_at_0_1_percent is not None:
        sentences.append(
            f"With a threshold that flags at most 0.1 % of the ham (here {metrics.ham // 1000:,} of {metrics.ham:,}), "
            f"{metrics.recall_at_0_1_percent * 100:.1f} % of the spam would be caught."
        )
        sentences.append(
            f"One spam message is {100 / metrics.spam:.2g} % of recall here; smaller differences mean nothing."
        )
    return sentences


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _was(count: int) -> str:
    return f"{count:,} " + ("was" if count == 1 else "were")


def hardest_messages(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    texts: Sequence[str],
    threshold: float,
    list_spam: bool,
    explain: Callable[[Sequence[str]], Sequence[Explanation]] | None = None,
) -> list[HardMessage]:
    """Returns up to 20 spam messages with the lowest probabilities, or ham messages with the highest; worst first.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        texts: [messages].
        threshold: probability from which a message is flagged.
        list_spam: whether to list the spam or the ham.
        explain: explains the scores of messages; called for those with a wrong verdict.
    """
    spam, scores = validate_scores(labels, probabilities)
    order = np.argsort(scores if list_spam else -scores, kind="stable")
    hardest = order[spam[order] == list_spam][:MAX_HARDEST].tolist()
    wrong = [index for index in hardest if bool(scores[index] >= threshold) != list_spam]
    explanations = explain([texts[index] for index in wrong]) if explain else []
    by_index = dict(zip(wrong, explanations, strict=False))
    return [_hard_message(texts[index], float(scores[index]), index in wrong, by_index.get(index)) for index in hardest]


def _hard_message(text: str, probability: float, wrong: bool, explanation: Explanation | None = None) -> HardMessage:
    hard = HardMessage(*quote_message(text), probability, wrong)
    if explanation is None:
        return hard
    moved = tuple((spell_out(_shorten(part.text)), part.change) for part in explanation.strongest(MAX_WORDS))
    decisive = tuple(spell_out(_shorten(part.text)) for part in explanation.decisive)
    return dataclasses.replace(hard, moved=moved, decisive=decisive, unmoved=not moved)


def _shorten(word: str) -> str:
    return word if len(word) <= MAX_WORD_CHARACTERS else word[:MAX_WORD_CHARACTERS] + "…"


def _comparison_tables(
    compared: Sequence[Comparison], compared_with_teacher: Sequence[Comparison], version: int | None
) -> Iterator[dict[str, Any]]:
    """Yields the tables of compared figures: the title, the name of the other model, and the rows."""
    title, other = "Uncertainty of the figures", ""
    if any(comparison.in_service for comparison in compared):
        title, other = f"Against version {version}, on the same test messages", "In service"
    for heading, name, baseline, comparisons in (
        (title, other, "in service", compared),
        ("Against its teacher, on the same test messages", "Teacher", "with its teacher", compared_with_teacher),
    ):
        rows = [_comparison_row(comparison, baseline) for comparison in comparisons if comparison.new]
        if rows:
            yield {"title": heading, "other": name, "rows": rows}


def _comparison_row(comparison: Comparison, baseline: str) -> dict[str, Any]:
    worse = "higher" if comparison.lower_is_better else "lower"
    return {
        "title": comparison.title,
        "sentence": f"May be up to {comparison.allowed:g} {worse} than {baseline}." if comparison.in_service else "",
        "failed": comparison.shows_loss,
        "cells": [
            _format_interval(comparison.new, ".4f"),
            _format_interval(comparison.in_service, ".4f"),
            _format_interval(comparison.difference, "+.4f"),
        ],
    }


def _format_interval(interval: Interval | None, form: str) -> tuple[str, str]:
    """Formats a value and its interval."""
    if interval is None:
        return "", ""
    return f"{interval.value:{form}}", f"{interval.low:{form}} to {interval.high:{form}}"


def _flip_table(flips: Flips) -> FlipTable:
    changed = flips.newly_flagged + flips.newly_passed
    sentence = (
        f"Of {flips.source}, {flips.messages:,} in all, {flips.newly_flagged:,} would be newly flagged, and "
        f"{flips.newly_passed:,} would no longer be flagged: {flips.share * 100:.2f} %."
    )
    if changed > len(flips.examples):
        sentence += f" The {len(flips.examples):,} with the largest change of probability:"
    return FlipTable(sentence, [_flipped_message(flip) for flip in flips.examples])


def _flipped_message(flip: Flip) -> FlippedMessage:
    hard = _hard_message(flip.text, flip.now, wrong=False)
    tag = "flagged now" if flip.flagged_now else "no longer flagged"
    if flip.spam is not None:
        tag += f", {'right' if flip.flagged_now == flip.spam else 'wrong'}: it is {'spam' if flip.spam else 'ham'}"
    right = None if flip.spam is None else flip.flagged_now == flip.spam
    return FlippedMessage(hard.parts, hard.hidden_characters, flip.before, flip.now, tag, right)


def _figure_rows(metrics: Metrics, in_service: Metrics | None) -> list[dict[str, str]]:
    rows = []
    for name, meaning in metric_descriptions().items():
        shown = meaning.format(getattr(metrics, name))
        before = meaning.format(getattr(in_service, name)) if in_service else ""
        rows.append({"title": meaning.title, "sentence": meaning.sentence, "shown": shown, "before": before})
    return rows


def _draw_all(
    spam: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    metrics: Metrics,
    history: Sequence[Mapping[str, float | None]],
) -> list[tuple[str, str, str]]:
    """Returns title, caption and SVG of each plot."""
    from models.reports import plots

    return [
        (
            "At the threshold",
            "Blue is right, orange is wrong; a darker cell is a larger share of its row.",
            plots.draw_confusion(metrics),
        ),
        (
            "Spam probabilities",
            "The further apart the two groups are, the better. The threshold matters for messages between them.",
            plots.draw_scores(spam, scores, metrics.threshold),
        ),
        (
            "ROC curve",
            "Share of spam caught for each share of ham flagged wrongly. The left end matters most in practice.",
            plots.draw_roc(spam, scores, metrics),
        ),
        (
            "Precision and recall",
            "The closer to the upper right corner, the better.",
            plots.draw_precision_recall(spam, scores, metrics),
        ),
        (
            "Calibration",
            "On the dashed line, four of five messages with a probability of 80 % are spam. Bars are 95 % intervals.",
            plots.draw_calibration(spam, scores),
        ),
        (
            "Training",
            "If the validation loss rises while the training loss falls, the network overfits.",
            plots.draw_history(history),
        ),
    ]
