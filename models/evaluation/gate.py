"""The gate: whether a model may be published, and why.

A model must be better than calling every message the more frequent label, and than chance. Where a version is in
service, it must not be worse than that: not in three figures on the same test messages, each with a bootstrap interval,
and not by changing more verdicts on real messages than the budget allows.

A figure fails where the new model is worse by more than the allowance, and not by chance: the difference's interval
does not reach the side on which it is as good. The allowance alone would let models that differ by their seed keep one
another out, for one spam message in a hundred is a point of recall; the interval alone would refuse what nobody would
notice. To ask that the whole interval lies beyond the allowance was tried: with a hundred spam messages it takes models
of a fifth of the data for good ones. What a small test part cannot show, the budget of flipped verdicts may.
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
_CELLS = 4_000_000  # of a block of resamples times messages: memory does not grow with either


@dataclass(frozen=True)
class Interval:
    """A figure, and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """One figure of the new model and of the version in service, on the same messages.

    Attributes:
        name: ``pr_auc``, ``recall`` or ``calibration_error``.
        title: for a person.
        lower_is_better: whether the new model is worse when the difference is above 0.
        allowed: how much worse it may be.
        new: of the new model; None where it is not defined, for all messages are of one kind.
        in_service: of the version in service; None where there is none.
        difference: of `new` minus `in_service`, resampled in pairs.
    """

    name: str
    title: str
    lower_is_better: bool
    allowed: float
    new: Interval | None = None
    in_service: Interval | None = None
    difference: Interval | None = None

    @property
    def beyond(self) -> bool:
        """Whether the new model is worse by more than is allowed."""
        if self.difference is None:
            return False
        lost = self.difference.value if self.lower_is_better else -self.difference.value
        return lost > self.allowed + ROUNDING

    @property
    def by_chance(self) -> bool:
        """Whether the interval reaches the side on which the new model is as good."""
        if self.difference is None:
            return True
        return (self.difference.low if self.lower_is_better else -self.difference.high) <= ROUNDING

    @property
    def shows_loss(self) -> bool:
        """Whether the new model is worse by more than is allowed, and not by chance."""
        return self.beyond and not self.by_chance


@dataclass(frozen=True)
class Flip:
    """A message whose verdict is another: what identifies it, its text, and its probabilities.

    `spam` is its label, None where nobody gave one.
    """

    message_id: str
    text: str
    before: float
    now: float
    flagged_now: bool
    spam: bool | None = None


@dataclass(frozen=True)
class Flips:
    """How the verdicts on some messages change, each model at its own threshold.

    Attributes:
        source: what the messages are, for a person.
        messages: how many were scored by both.
        newly_flagged: how many of them only the new model flags.
        newly_passed: how many only the version in service does.
        examples: those whose probability moved furthest, first.
    """

    source: str
    messages: int
    newly_flagged: int
    newly_passed: int
    examples: list[Flip]

    @property
    def share(self) -> float:
        """Of the messages, the share whose verdict is another; 0 of none."""
        return (self.newly_flagged + self.newly_passed) / self.messages if self.messages else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON, without the texts: they are people's, and only the report quotes them."""
        examples = [{**dataclasses.asdict(one)} for one in self.examples]
        for one in examples:
            del one["text"]
        return {**dataclasses.asdict(self), "share": self.share, "examples": examples}


class FlipCount:
    """Counts flips chunk by chunk; keeps no more messages than are shown."""

    def __init__(self, shown: int) -> None:
        self._shown = shown
        self._messages = self._flagged = self._passed = 0
        self._examples: list[Flip] = []

    def add(
        self,
        message_ids: Sequence[str],
        texts: Sequence[str],
        before: tuple[npt.ArrayLike, float],
        now: tuple[npt.ArrayLike, float],
        spam: npt.ArrayLike | None = None,
    ) -> None:
        """Takes a chunk.

        Args:
            message_ids: what identifies each message.
            texts: each message.
            before: probabilities by the version in service, float [messages], and its threshold.
            now: the same of the new model.
            spam: labels, bool [messages], where there are any.
        """
        old, new = np.asarray(before[0], np.float64), np.asarray(now[0], np.float64)
        was, is_now = old >= before[1], new >= now[1]
        self._messages += len(old)
        self._flagged += int((is_now & ~was).sum())
        self._passed += int((was & ~is_now).sum())
        labels = None if spam is None else np.asarray(spam, np.bool_)
        places = np.flatnonzero(was != is_now)
        places = places[np.argsort(-np.abs(new - old)[places], kind="stable")][: self._shown]
        found = [
            Flip(
                str(message_ids[place]),
                texts[place],
                float(old[place]),
                float(new[place]),
                bool(is_now[place]),
                None if labels is None else bool(labels[place]),
            )
            for place in places.tolist()
        ]
        self._examples = heapq.nlargest(self._shown, self._examples + found, key=lambda one: abs(one.now - one.before))

    def flips(self, source: str) -> Flips:
        """What was counted."""
        return Flips(source, self._messages, self._flagged, self._passed, self._examples)


@dataclass(frozen=True)
class Check:
    """One of the gate's checks: whether it was passed (None: it could not be made), and what is to be said of it."""

    name: str
    passed: bool | None
    said: str


@dataclass(frozen=True)
class Verdict:
    """Whether a model may go into service, and why: what it failed, or, when it failed nothing, what it passed."""

    approved: bool
    reasons: list[str]
    checks: list[Check] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Verdict:
        """What `to_dict` gave, found among other keys."""
        checks = [Check(one["name"], one["passed"], one["said"]) for one in found.get("checks", [])]
        return cls(bool(found["approved"]), list(found["reasons"]), checks)


def judge(
    metrics: Metrics,
    compared: Sequence[Compared] = (),
    flips: Flips | str | None = None,
    settings: GateSettings | None = None,
) -> Verdict:
    """Decides whether a model may be published.

    Args:
        metrics: the new model's.
        compared: what `compare` gave, where a version is in service.
        flips: how the verdicts on the latest batch change; why that is not known; None where no version is in service.
        settings: allowances and budget; the defaults if not given.
    """
    settings = settings or GateSettings()
    checks = [_above_majority(metrics), _above_chance(metrics)]
    checks += [_not_worse(one, metrics, settings) for one in compared if one.in_service or one.new is None]
    if flips is not None:
        checks.append(_within_budget(flips, settings))
    approved = all(check.passed is not False for check in checks)
    reasons = [check.said for check in checks if (check.passed is not False) == approved]
    return Verdict(approved, reasons, checks)


def _above_majority(metrics: Metrics) -> Check:
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


def _above_chance(metrics: Metrics) -> Check:
    if metrics.mcc is None:
        return Check("chance", False, f"there is no MCC: expected spam and ham, received {_kinds(metrics)}")
    passed = metrics.mcc > 0
    return Check("chance", passed, f"MCC {metrics.mcc:.4f} is {'' if passed else 'not '}above 0, which is chance")


def _not_worse(one: Compared, metrics: Metrics, settings: GateSettings) -> Check:
    if one.new is None or one.in_service is None or one.difference is None:
        return Check(
            one.name, False, f"there is no {one.title} to compare: expected spam and ham, received {_kinds(metrics)}"
        )
    far = f"{one.allowed:g} {'above' if one.lower_is_better else 'below'}"
    chance = (", which may be chance" if one.by_chance else ", and not by chance") if one.beyond else ""
    return Check(
        one.name,
        not one.shows_loss,
        f"{one.title} {one.new.value:.4f} is {'' if one.beyond else 'not '}more than {far} the "
        f"{one.in_service.value:.4f} of the version in service{chance}: difference {one.difference.value:+.4f}, "
        f"{settings.confidence * 100:g} % interval {one.difference.low:+.4f} to {one.difference.high:+.4f}",
    )


def _within_budget(flips: Flips | str, settings: GateSettings) -> Check:
    if isinstance(flips, str):
        return Check("flips", None, f"verdicts that would change were not counted: {flips}")
    passed = flips.share <= settings.flip_budget + ROUNDING
    return Check(
        "flips",
        passed,
        f"{flips.newly_flagged + flips.newly_passed:,} of {flips.messages:,} verdicts on {flips.source} would change "
        f"({flips.newly_flagged:,} flagged now, {flips.newly_passed:,} no longer), {flips.share * 100:.2f} %, which is "
        f"{'within' if passed else 'over'} the budget of {settings.flip_budget * 100:g} %",
    )


def _kinds(metrics: Metrics) -> str:
    return f"{metrics.spam:,} spam and {metrics.ham:,} ham"


def compare(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    in_service: npt.ArrayLike | None,
    share: float,
    settings: GateSettings,
) -> list[Compared]:
    """The three figures of the gate with their intervals, and the differences where there is a version in service.

    Percentile intervals of a bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13):
    messages are drawn with replacement, spam and ham apart so that both are in each resample, and both models are
    measured on the same draw. The random numbers are the same in each run.

    PR AUC is average precision, recall that at the lowest threshold that flags at most `share` of the ham, and the
    calibration error that of `metrics.calibration_curve`: all as `metrics.evaluate` has them.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1], of the new model.
        in_service: float [messages], of the version in service; None where there is none.
        share: of the ham.
        settings: allowances, resamples, confidence.

    Raises:
        ValueError: another shape, a label but 0 and 1, a probability that is NaN or outside [0, 1].
    """
    spam, new = validate_scores(labels, probabilities)
    old = None if in_service is None else validate_scores(labels, in_service)[1]
    bare = [
        Compared("pr_auc", metric_descriptions()["pr_auc"].title, False, settings.pr_auc_allowance),
        Compared("recall", f"Recall at {share * 100:g} % of ham flagged", False, settings.recall_allowance),
        Compared(
            "calibration_error",
            metric_descriptions()["expected_calibration_error"].title,
            True,
            settings.calibration_allowance,
        ),
    ]
    if spam.all() or not spam.any():
        return bare
    models = [_Ranking(spam, scores, share) for scores in (new, old) if scores is not None]
    values = np.array([one.figures(np.ones((1, len(spam))))[:, 0] for one in models])
    drawn = np.concatenate(
        [[one.figures(weights) for one in models] for weights in _resamples(spam, settings.resamples)], axis=2
    )
    found = []
    for place, one in enumerate(bare):
        intervals = [_interval(values[model, place], drawn[model, place], settings) for model in range(len(models))]
        if len(models) == 1:
            found.append(dataclasses.replace(one, new=intervals[0]))
            continue
        difference = _interval(values[0, place] - values[1, place], drawn[0, place] - drawn[1, place], settings)
        found.append(dataclasses.replace(one, new=intervals[0], in_service=intervals[1], difference=difference))
    return found


def _interval(value: float, drawn: FloatArray, settings: GateSettings) -> Interval:
    outside = (1 - settings.confidence) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return Interval(float(value), float(low), float(high))


def _resamples(spam: BoolArray, resamples: int) -> Iterator[FloatArray]:
    """How often each message was drawn, float64 [resamples of a block, messages], block by block."""
    generator = np.random.default_rng(SEED)
    block = max(_CELLS // len(spam), 1)
    for first in range(0, resamples, block):
        rows = min(block, resamples - first)
        weights = np.zeros((rows, len(spam)))
        for places in (np.flatnonzero(spam), np.flatnonzero(~spam)):
            drawn = generator.integers(len(places), size=(rows, len(places)))
            drawn += np.arange(rows)[:, np.newaxis] * len(places)
            counts = np.bincount(drawn.ravel(), minlength=rows * len(places))
            weights[:, places] = counts.reshape(rows, len(places))
        yield weights


class _Ranking:
    """One model's probabilities of spam and ham, made ready to be measured under many weights at once."""

    def __init__(self, spam: BoolArray, scores: FloatArray, share: float) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        # Messages of one probability are flagged together.
        self._last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self._spam = spam[self._order].astype(np.float64)
        self._share = share
        # What a message adds to its bin's gap between what was said and what came true.
        self._gaps = np.zeros((len(spam), CALIBRATION_BINS))
        self._gaps[np.arange(len(spam)), calibration_bins(scores)] = scores - spam

    def figures(self, weights: FloatArray) -> FloatArray:
        """PR AUC, recall, calibration error, float64 [3, resamples], of weights float64 [resamples, messages]."""
        ranked = weights[:, self._order]
        caught = np.cumsum(ranked * self._spam, axis=1)[:, self._last]
        wrong = np.cumsum(ranked * (1 - self._spam), axis=1)[:, self._last]
        recall = caught / caught[:, -1:]
        flagged = caught + wrong
        precision = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
        pr_auc = (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)
        allowed = wrong / wrong[:, -1:] <= self._share + ROUNDING
        error = np.abs(weights @ self._gaps).sum(axis=1) / weights.sum(axis=1)
        return np.array([pr_auc, np.where(allowed, recall, 0.0).max(axis=1), error])
