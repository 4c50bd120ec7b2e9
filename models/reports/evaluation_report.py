"""The evaluation report: one HTML file about one model on one set of labelled messages, for a person to read.

The file needs nothing beside it, and its Content-Security-Policy lets it fetch nothing. Messages are a stranger's text:
they are escaped, characters that cannot be seen or that turn the line around are spelled out, and long ones are cut.
Figures come from `metrics`, drawings from `plots`, the words from `templates/evaluation.html`, looks from `pages`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.evaluation.factors import Group
from models.evaluation.gate import Compared, Flip, Flips, Interval, Verdict
from models.reports.pages import page, quoted, spell_out
from models.statistics.arrays import validate_scores
from models.statistics.calibration import Threshold
from models.statistics.metrics import Metrics, metric_descriptions

if TYPE_CHECKING:
    from models.evaluation.explanation import Explanation

HARDEST = 20
MOVING_WORDS = 6
MOVING_CHARACTERS = 40  # shown of each of these words


@dataclass(frozen=True)
class HardMessage:
    """One message of the list of hardest ones.

    `parts`: the text in turn as it stands and as [U+…] marks, so that a page can set the marks apart. `moved`: the
    words that moved the score most, and by how much, in logits. `decisive`: words without which the verdict would be
    right. `unmoved`: whether it was asked for the former and there is none.
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
    """One message whose verdict is another. `parts` and `hidden_characters` as for a hard message.

    `right`: whether the new verdict is; None where nobody gave a label.
    """

    parts: tuple[str, ...]
    hidden_characters: int
    before: float
    now: float
    tag: str
    right: bool | None


@dataclass(frozen=True)
class FlipTable:
    """What is said of the flips on some messages, and some of them."""

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
    compared: Sequence[Compared] = (),
    confidence: float = 0.95,
    groups: Sequence[Group] = (),
    flips: Sequence[Flips | str] = (),
    in_service: Metrics | None = None,
    in_service_version: int | None = None,
    explain: Callable[[Sequence[str]], Sequence[Explanation]] | None = None,
) -> str:
    """Renders the report. The same input gives the same text; a date to show belongs into `facts`.

    Args:
        model: the model's name.
        fingerprint: of the training, as its folder is named.
        verdict: what `gate.judge` said.
        metrics: the model's, on these messages.
        threshold: how the threshold was come by.
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        texts: [messages]; any characters.
        history: one mapping an epoch, as `plots.draw_history` takes it.
        facts: tables of settings, counts and fingerprints: a title to names to values.
        compared: what `gate.compare` gave.
        confidence: of the intervals in it and in `groups`.
        groups: what `factors.measure_groups` gave.
        flips: the verdicts that change on some messages, or why they are not known.
        in_service: metrics of the version in service on the same messages, shown beside.
        in_service_version: its number.
        explain: says which words moved the model's scores of messages; asked of the worst mistakes.

    Raises:
        ValueError: labels, probabilities and texts of different length or out of range, or metrics of other messages.
    """
    spam, scores = validate_scores(labels, probabilities)
    _check_belonging(metrics, len(spam), len(texts))
    return page("evaluation.html").render(
        model=model,
        fingerprint=fingerprint,
        verdict=verdict,
        passed=_passed_sentence(verdict),
        sentences=[*headline(metrics), threshold.description],
        compared_rows=[_compared_row(one) for one in compared if one.new],
        confidence=f"{confidence * 100:g} %",
        factors=_factor_tables(groups),
        flips=[one if isinstance(one, str) else _flip_table(one) for one in flips],
        version=in_service_version,
        rows=_figure_rows(metrics, in_service),
        compared=in_service is not None,
        plots=_draw_all(spam, scores, metrics, history),
        missed=hardest_messages(spam, scores, texts, metrics.threshold, of_spam=True, explain=explain),
        flagged=hardest_messages(spam, scores, texts, metrics.threshold, of_spam=False, explain=explain),
        facts=facts,
    )


def _passed_sentence(verdict: Verdict) -> str:
    """What is said of a model that is approved; the checks themselves stand below."""
    made = [check for check in verdict.checks if check.passed is not None]
    rest = len(verdict.checks) - len(made)
    left_out = f"; {rest} could not be made" if rest else ""
    return f"{len(made)} of {len(verdict.checks)} checks passed{left_out}." if made else ""


def _factor_tables(groups: Sequence[Group]) -> dict[str, list[dict[str, Any]]]:
    """By factor a row a group: its name, and of spam and ham the counts, the share and its interval as text."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for one in groups:
        cells = [
            (f"{one.spam_caught:,} of {one.spam:,}", *_share(one.recall)),
            (f"{one.ham_flagged:,} of {one.ham:,}", *_share(one.ham_wrongly_flagged)),
        ]
        tables.setdefault(one.factor, []).append({"name": one.name, "cells": cells})
    return tables


def _share(interval: Interval | None) -> tuple[str, str]:
    """A share and its interval, as text."""
    if interval is None:
        return "", ""
    return f"{interval.value * 100:.1f} %", f"{interval.low * 100:.1f} to {interval.high * 100:.1f} %"


def _check_belonging(metrics: Metrics, labels: int, texts: int) -> None:
    if not texts == labels == metrics.messages:
        raise ValueError(
            "Expected as many texts as labels, and the metrics of the same messages. "
            f"Received: {texts} texts, {labels} labels, metrics of {metrics.messages} messages"
        )


def headline(metrics: Metrics) -> list[str]:
    """What the figures say, in plain sentences."""
    if not metrics.messages:
        return ["No labelled message was scored, so there is nothing to tell."]
    caught = f"of {_number(metrics.spam, 'spam message')} {_was(metrics.true_positives)} caught"
    flagged = f"of {_number(metrics.ham, 'ham message')} {_was(metrics.false_positives)} flagged wrongly"
    parts = [caught if metrics.spam else "there was no spam", flagged if metrics.ham else "there was no ham"]
    sentences = ["; ".join(parts).capitalize() + "."]
    if metrics.recall_at_0_1_percent is not None:
        sentences.append(
            f"With a threshold that flags at most 0.1 % of the ham (here {metrics.ham // 1000:,} of {metrics.ham:,}), "
            f"{metrics.recall_at_0_1_percent * 100:.1f} % of the spam would be caught."
        )
        sentences.append(
            f"One spam message is {100 / metrics.spam:.2g} % of recall here; smaller differences say nothing."
        )
    return sentences


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _was(count: int) -> str:
    return f"{count:,} " + ("was" if count == 1 else "were")


def hardest_messages(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    texts: Sequence[str],
    threshold: float,
    of_spam: bool,
    explain: Callable[[Sequence[str]], Sequence[Explanation]] | None = None,
) -> list[HardMessage]:
    """The up to 20 spam messages of lowest probability, or ham messages of highest; the worst comes first.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        texts: [messages].
        threshold: from which on a message is flagged.
        of_spam: whether to list the spam or the ham.
        explain: says which words moved the scores; asked of those that are wrong.
    """
    spam, scores = validate_scores(labels, probabilities)
    order = np.argsort(scores if of_spam else -scores, kind="stable")
    chosen = order[spam[order] == of_spam][:HARDEST].tolist()
    wrong = [place for place in chosen if bool(scores[place] >= threshold) != of_spam]
    explained = explain([texts[place] for place in wrong]) if explain else []
    why = dict(zip(wrong, explained, strict=False))
    return [_hard(texts[place], float(scores[place]), place in wrong, why.get(place)) for place in chosen]


def _hard(text: str, probability: float, wrong: bool, explained: Explanation | None = None) -> HardMessage:
    hard = HardMessage(*quoted(text), probability, wrong)
    if explained is None:
        return hard
    moved = tuple((spell_out(_cut(part.text)), part.change) for part in explained.strongest(MOVING_WORDS))
    decisive = tuple(spell_out(_cut(part.text)) for part in explained.decisive)
    return dataclasses.replace(hard, moved=moved, decisive=decisive, unmoved=not moved)


def _cut(word: str) -> str:
    return word if len(word) <= MOVING_CHARACTERS else word[:MOVING_CHARACTERS] + "…"


def _compared_row(one: Compared) -> dict[str, Any]:
    worse = "higher" if one.lower_is_better else "lower"
    return {
        "title": one.title,
        "sentence": f"May be up to {one.allowed:g} {worse} than in service." if one.in_service else "",
        "failed": one.shows_loss,
        "cells": [_interval(one.new, ".4f"), _interval(one.in_service, ".4f"), _interval(one.difference, "+.4f")],
    }


def _interval(interval: Interval | None, form: str) -> tuple[str, str]:
    """The value and its interval, as text."""
    if interval is None:
        return "", ""
    return f"{interval.value:{form}}", f"{interval.low:{form}} to {interval.high:{form}}"


def _flip_table(flips: Flips) -> FlipTable:
    changed = flips.newly_flagged + flips.newly_passed
    sentence = (
        f"Of {flips.source}, {flips.messages:,} in all, {flips.newly_flagged:,} would be flagged that are not now, and "
        f"{flips.newly_passed:,} would be flagged no longer: {flips.share * 100:.2f} %."
    )
    if changed > len(flips.examples):
        sentence += f" The {len(flips.examples):,} whose probability moved furthest:"
    return FlipTable(sentence, [_flipped(one) for one in flips.examples])


def _flipped(flip: Flip) -> FlippedMessage:
    hard = _hard(flip.text, flip.now, wrong=False)
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
    """Title, caption and SVG of each plot."""
    from models.reports import plots

    return [
        (
            "At the threshold",
            "Blue is right, orange is wrong; the deeper, the larger its share of the row.",
            plots.draw_confusion(metrics),
        ),
        (
            "Spam probabilities",
            "Far apart is good. What lies between the two heaps is where the threshold matters.",
            plots.draw_scores(spam, scores, metrics.threshold),
        ),
        (
            "ROC curve",
            "How much spam is caught for how much ham flagged wrongly. The left end is the one to live at.",
            plots.draw_roc(spam, scores, metrics),
        ),
        (
            "Precision and recall",
            "The further into the upper right corner, the better.",
            plots.draw_precision_recall(spam, scores, metrics),
        ),
        (
            "Calibration",
            "On the dashed line, of messages said to be spam with 80 % four in five are. Bars are 95 % intervals.",
            plots.draw_calibration(spam, scores),
        ),
        (
            "Training",
            "When the validation loss rises while the training loss falls, the network learns by heart.",
            plots.draw_history(history),
        ),
    ]
