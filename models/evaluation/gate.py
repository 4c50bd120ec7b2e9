"""The gate: decides whether a model may be published, and gives the reasons.

A model must be better than calling every message the more frequent label, and better than chance. It must not be worse
than the version in service: in three figures with bootstrap intervals, and in the verdicts on real messages that flip.

A figure fails if the new model is worse by more than the allowance, and not by chance: the interval of the difference
does not reach the side where the new model is as good. With the allowance alone, two models that differ only by their
seed would keep each other out, because one spam message in a hundred is a point of recall. With the interval alone, the
gate would refuse a loss that nobody would notice. An interval that must lie beyond the allowance accepts models trained
on a fifth of the data. The budget of flipped verdicts finds losses that a small test part cannot show.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.settings import GateSettings
from models.statistics.arrays import BoolArray, FloatArray, validate_scores
from models.statistics.curves import CALIBRATION_BINS, calibration_bins
from models.statistics.metrics import ROUNDING, Metrics, metric_descriptions

SEED = 7
_IN_SERVICE = "the version in service"
_BLOCK_CELLS = 4_000_000  # resamples times messages of one block, so that memory grows with neither


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One figure of the new model and of the version in service, on the same messages.

    Attributes:
        name: ``pr_auc``, ``recall`` or ``calibration_error``.
        title: name of the figure in reports.
        lower_is_better: whether the new model is worse when the difference is above 0.
        allowed: how much worse the new model may be.
        new: figure of the new model; None if it is not defined because all messages have the same label.
        in_service: figure of the version in service; None if there is no version in service.
        difference: `new` minus `in_service`, resampled in pairs.
    """

    name: str
    title: str
    lower_is_better: bool
    allowed: float
    new: Interval | None = None
    in_service: Interval | None = None
    difference: Interval | None = None

    @property
    def exceeds_allowance(self) -> bool:
        """Whether the new model is worse by more than the allowance."""
        if self.difference is None:
            return False
        loss = self.difference.value if self.lower_is_better else -self.difference.value
        return loss > self.allowed + ROUNDING

    @property
    def by_chance(self) -> bool:
        """Whether the interval of the difference reaches the side where the new model is as good."""
        if self.difference is None:
            return True
        return (self.difference.low if self.lower_is_better else -self.difference.high) <= ROUNDING

    @property
    def shows_loss(self) -> bool:
        """Whether the new model is worse by more than the allowance, and not by chance."""
        return self.exceeds_allowance and not self.by_chance


@dataclass(frozen=True)
class Flip:
    """A message whose verdict flips, with its spam probabilities before and now.

    `spam` is its label; None if it has no label.
    """

    message_id: str
    text: str
    before: float
    now: float
    flagged_now: bool
    spam: bool | None = None


@dataclass(frozen=True)
class Flips:
    """The verdicts that flip on a set of messages, each model at its own threshold.

    Attributes:
        source: description of the messages.
        messages: number of messages that both models scored.
        newly_flagged: number of messages that only the new model flags.
        newly_passed: number of messages that only the version in service flags.
        examples: flipped messages whose probability changed most, largest change first.
    """

    source: str
    messages: int
    newly_flagged: int
    newly_passed: int
    examples: list[Flip]

    @property
    def share(self) -> float:
        """Share of the messages whose verdict flips; 0 if there are no messages."""
        return (self.newly_flagged + self.newly_passed) / self.messages if self.messages else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the flips as JSON values, without texts: messages are private, and only the report quotes them."""
        examples = [dataclasses.asdict(example) for example in self.examples]
        for example in examples:
            del example["text"]
        return {**dataclasses.asdict(self), "share": self.share, "examples": examples}


class FlipCounter:
    """Counts flips chunk by chunk. Keeps at most `max_examples` messages in memory."""

    def __init__(self, max_examples: int) -> None:
        self._max_examples, self._examples = max_examples, list[Flip]()
        self._messages = self._flagged = self._passed = 0

    def add(
        self,
        message_ids: Sequence[str],
        texts: Sequence[str],
        before: tuple[npt.ArrayLike, float],
        now: tuple[npt.ArrayLike, float],
        spam: npt.ArrayLike | None = None,
    ) -> None:
        """Adds a chunk.

        Args:
            message_ids: identifiers [messages].
            texts: texts [messages].
            before: probabilities by the version in service, float [messages], and its threshold.
            now: probabilities by the new model, float [messages], and its threshold.
            spam: labels, bool [messages]; None if there are no labels.
        """
        old, new = np.asarray(before[0], np.float64), np.asarray(now[0], np.float64)
        flagged_before, flagged_now = old >= before[1], new >= now[1]
        self._messages += len(old)
        self._flagged += int((flagged_now & ~flagged_before).sum())
        self._passed += int((flagged_before & ~flagged_now).sum())
        labels = None if spam is None else np.asarray(spam, np.bool_)
        flipped = np.flatnonzero(flagged_before != flagged_now)
        flipped = flipped[np.argsort(-np.abs(new - old)[flipped], kind="stable")][: self._max_examples]
        examples = [
            Flip(
                str(message_ids[index]),
                texts[index],
                float(old[index]),
                float(new[index]),
                bool(flagged_now[index]),
                None if labels is None else bool(labels[index]),
            )
            for index in flipped.tolist()
        ]
        examples = self._examples + examples
        self._examples = heapq.nlargest(self._max_examples, examples, key=lambda flip: abs(flip.now - flip.before))

    def flips(self, source: str) -> Flips:
        """Returns the counts so far; `source` describes the messages."""
        return Flips(source, self._messages, self._flagged, self._passed, self._examples)


@dataclass(frozen=True)
class Check:
    """The result of one check of the gate, and the result as a sentence (stored as ``said`` in ``metrics.json``).

    `passed` is None if the check could not be made.
    """

    name: str
    passed: bool | None
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """Whether a model may go into service, and the reasons: the failed checks, or all passed checks if none failed."""

    approved: bool
    reasons: list[str]
    checks: list[Check] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the verdict as JSON values."""
        checks = [{"name": check.name, "passed": check.passed, "said": check.sentence} for check in self.checks]
        return {"approved": self.approved, "reasons": list(self.reasons), "checks": checks}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Verdict:
        """Reads a verdict from what `to_dict` returned; ignores other keys."""
        checks = [Check(check["name"], check["passed"], check["said"]) for check in content.get("checks", [])]
        return cls(bool(content["approved"]), list(content["reasons"]), checks)


def judge(
    metrics: Metrics,
    compared: Sequence[Comparison] = (),
    flips: Flips | str | None = None,
    settings: GateSettings | None = None,
    taught: Sequence[Comparison] = (),
) -> Verdict:
    """Decides whether a model may be published.

    Args:
        metrics: metrics of the new model on the test part.
        compared: result of `compare`, if a version is in service.
        flips: flips on the latest batch, or the reason why they could not be counted; None if no version is in service.
        settings: allowances and budget; the defaults if not given.
        taught: for a self-trained model, result of `compare` with its teacher.
    """
    settings = settings or GateSettings()
    checks = [_check_above_majority(metrics), _check_above_chance(metrics)]
    comparable = [comparison for comparison in compared if comparison.in_service or comparison.new is None]
    checks += [_check_not_worse(comparison, metrics, settings) for comparison in comparable]
    checks += [_check_not_worse(comparison, metrics, settings, teacher=True) for comparison in taught]
    if flips is not None:
        checks.append(_check_flip_budget(flips, settings))
    approved = all(check.passed is not False for check in checks)
    reasons = [check.sentence for check in checks if (check.passed is not False) == approved]
    return Verdict(approved, reasons, checks)


def _check_above_majority(metrics: Metrics) -> Check:
    name = "majority"
    if metrics.accuracy is None or metrics.majority_class_accuracy is None:
        return Check(name, False, "there is no accuracy: expected labelled messages in the test part, received none")
    passed = metrics.accuracy > metrics.majority_class_accuracy
    frequent = "ham" if metrics.ham >= metrics.spam else "spam"
    return Check(
        name,
        passed,
        f"accuracy {metrics.accuracy * 100:.2f} % is {'' if passed else 'not '}above the "
        f"{metrics.majority_class_accuracy * 100:.2f} % of calling every message {frequent}",
    )


def _check_above_chance(metrics: Metrics) -> Check:
    if metrics.mcc is None:
        return Check(
            "chance", False, f"there is no MCC: expected spam and ham, received {_describe_label_counts(metrics)}"
        )
    passed = metrics.mcc > 0
    return Check("chance", passed, f"MCC {metrics.mcc:.4f} is {'' if passed else 'not '}above 0, which is chance")


def _check_not_worse(comparison: Comparison, metrics: Metrics, settings: GateSettings, teacher: bool = False) -> Check:
    name, other = (f"{comparison.name}_teacher", "its teacher") if teacher else (comparison.name, _IN_SERVICE)
    new, in_service, difference = comparison.new, comparison.in_service, comparison.difference
    if new is None or in_service is None or difference is None:
        counts = _describe_label_counts(metrics)
        sentence = f"there is no {comparison.title} to compare: expected spam and ham, received {counts}"
        return Check(name, False, sentence)
    exceeds = comparison.exceeds_allowance
    allowance = f"{comparison.allowed:g} {'above' if comparison.lower_is_better else 'below'}"
    chance = (", which may be chance" if comparison.by_chance else ", and not by chance") if exceeds else ""
    return Check(
        name,
        not comparison.shows_loss,
        f"{comparison.title} {new.value:.4f} is {'' if exceeds else 'not '}more than {allowance} the "
        f"{in_service.value:.4f} of {other}{chance}: difference {difference.value:+.4f}, "
        f"{settings.confidence * 100:g} % interval {difference.low:+.4f} to {difference.high:+.4f}",
    )


def _check_flip_budget(flips: Flips | str, settings: GateSettings) -> Check:
    if isinstance(flips, str):
        return Check("flips", None, f"flipped verdicts were not counted: {flips}")
    passed = flips.share <= settings.flip_budget + ROUNDING
    return Check(
        "flips",
        passed,
        f"{flips.newly_flagged + flips.newly_passed:,} of {flips.messages:,} verdicts on {flips.source} would change "
        f"({flips.newly_flagged:,} flagged now, {flips.newly_passed:,} no longer), {flips.share * 100:.2f} %, which is "
        f"{'within' if passed else 'over'} the budget of {settings.flip_budget * 100:g} %",
    )


def _describe_label_counts(metrics: Metrics) -> str:
    return f"{metrics.spam:,} spam and {metrics.ham:,} ham"


def compare(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    in_service: npt.ArrayLike | None,
    ham_share: float,
    settings: GateSettings,
) -> list[Comparison]:
    """Computes the three figures of the gate with their intervals, and the differences to the version in service.

    The intervals are percentile intervals of a bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap",
    1993, chapter 13). Messages are drawn with replacement, spam and ham separately, so that each resample contains
    both. Both models are measured on the same resample. The random numbers are the same in each run.

    PR AUC is the average precision. Recall is taken at the lowest threshold that flags at most `ham_share` of the ham.
    The calibration error is that of `curves.calibration_curve`. All three are computed as in `metrics.evaluate`.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1], by the new model.
        in_service: float [messages] in [0, 1], by the version in service; None if there is no version in service.
        ham_share: share of the ham that may be flagged, in [0, 1].
        settings: allowances, number of resamples, confidence.

    Raises:
        ValueError: wrong shape, a label other than 0 and 1, or a probability that is NaN or outside [0, 1].
    """
    spam, new = validate_scores(labels, probabilities)
    old = None if in_service is None else validate_scores(labels, in_service)[1]
    error_title = metric_descriptions()["expected_calibration_error"].title
    undefined = [
        Comparison("pr_auc", metric_descriptions()["pr_auc"].title, False, settings.pr_auc_allowance),
        Comparison("recall", f"Recall at {ham_share * 100:g} % of ham flagged", False, settings.recall_allowance),
        Comparison("calibration_error", error_title, True, settings.calibration_allowance),
    ]
    if spam.all() or not spam.any():
        return undefined
    models = [_Ranking(spam, scores, ham_share) for scores in (new, old) if scores is not None]
    values = np.array([model.compute_figures(np.ones((1, len(spam))))[:, 0] for model in models])
    blocks = _resamples(spam, settings.resamples)
    resampled = np.concatenate([[model.compute_figures(weights) for model in models] for weights in blocks], axis=2)
    comparisons = []
    for row, comparison in enumerate(undefined):
        intervals = [_interval(values[model, row], resampled[model, row], settings) for model in range(len(models))]
        if len(models) == 1:
            comparisons.append(dataclasses.replace(comparison, new=intervals[0]))
            continue
        difference = _interval(values[0, row] - values[1, row], resampled[0, row] - resampled[1, row], settings)
        first, second = intervals
        comparisons.append(dataclasses.replace(comparison, new=first, in_service=second, difference=difference))
    return comparisons


def _interval(value: float, resampled: FloatArray, settings: GateSettings) -> Interval:
    outside = (1 - settings.confidence) / 2
    low, high = np.quantile(resampled, [outside, 1 - outside])
    return Interval(float(value), float(low), float(high))


def _resamples(spam: BoolArray, resamples: int) -> Iterator[FloatArray]:
    """Yields how often each message was drawn, float64 [resamples of a block, messages], block by block."""
    generator = np.random.default_rng(SEED)
    block = max(_BLOCK_CELLS // len(spam), 1)
    for first in range(0, resamples, block):
        rows = min(block, resamples - first)
        weights = np.zeros((rows, len(spam)))
        for indices in (np.flatnonzero(spam), np.flatnonzero(~spam)):
            drawn = generator.integers(len(indices), size=(rows, len(indices)))
            drawn += np.arange(rows)[:, np.newaxis] * len(indices)
            counts = np.bincount(drawn.ravel(), minlength=rows * len(indices))
            weights[:, indices] = counts.reshape(rows, len(indices))
        yield weights


class _Ranking:
    """The probabilities of one model, sorted once so that its figures can be computed for many resamples at once."""

    def __init__(self, spam: BoolArray, scores: FloatArray, ham_share: float) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        # Messages with the same probability are flagged together.
        self._last_of_equal = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self._spam = spam[self._order].astype(np.float64)
        self._ham_share = ham_share
        # What each message adds to the gap of its bin: predicted probability minus label.
        self._gaps = np.zeros((len(spam), CALIBRATION_BINS))
        self._gaps[np.arange(len(spam)), calibration_bins(scores)] = scores - spam

    def compute_figures(self, weights: FloatArray) -> FloatArray:
        """Computes PR AUC, recall and calibration error, float64 [3, resamples], from weights [resamples, messages]."""
        ranked = weights[:, self._order]
        caught = np.cumsum(ranked * self._spam, axis=1)[:, self._last_of_equal]
        wrong = np.cumsum(ranked * (1 - self._spam), axis=1)[:, self._last_of_equal]
        recall = caught / caught[:, -1:]
        flagged = caught + wrong
        precision = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
        pr_auc = (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)
        allowed = wrong / wrong[:, -1:] <= self._ham_share + ROUNDING
        error = np.abs(weights @ self._gaps).sum(axis=1) / weights.sum(axis=1)
        return np.array([pr_auc, np.where(allowed, recall, 0.0).max(axis=1), error])
