"""The plots of the batch reports and their index, drawn as `models.reports.plots` draws those of an evaluation."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.text_statistics import LENGTHS
from models.reports.plots import FAINT, HAM_COLOUR, INK, NO_MESSAGES, SPAM_COLOUR, legend, note, percent, svg
from models.statistics.arrays import IntArray
from models.statistics.curves import HISTOGRAM_BINS
from models.statistics.stability import rebin_counts

LOW = 1.9  # inches, of a small chart
_WORDS_OF = {"share": "share", "count": "number", "index": "index"}


@dataclass(frozen=True)
class Course:
    """A figure of many batches, the oldest first.

    Attributes:
        name: of the chart, unlike that of any other on the page.
        title: of the figure.
        kind: `share` (in per cent), `count` or `index`.
        dates: of the batches.
        values: of each; None where it is not known.
        limits: lowest and highest value allowed, each None where there is none.
    """

    name: str
    title: str
    kind: str
    dates: Sequence[datetime.date]
    values: Sequence[float | None]
    limits: tuple[float | None, float | None] = (None, None)


def draw_course(course: Course) -> str:
    """A small chart of a figure by date, the last batch marked, limits dashed.

    Returns:
        SVG text; it says so when the figure is known of no batch.
    """
    values = np.array([np.nan if value is None else value for value in course.values], np.float64)
    if not np.isfinite(values).any():
        return note(course.name, course.title, "Not known of any batch.", LOW)
    days = np.array([date.toordinal() for date in course.dates], np.float64)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(days, values, "-", color=HAM_COLOUR, linewidth=1.5, marker="o", markersize=2.5)
        axes.plot(days[-1:], values[-1:], "o", color=SPAM_COLOUR, markersize=7)
        for limit in course.limits:
            if limit is not None:
                axes.axhline(limit, linestyle="--", **FAINT)
        axes.set_ylim(0, _top(values, course.limits[1]))
        _days(axes, course.dates)
        _scale(axes, course.kind)

    known = values[np.isfinite(values)]
    said = f"{course.title}, {_WORDS_OF[course.kind]} by date of {len(values)} batches, {course.dates[0]} to "
    said += f"{course.dates[-1]}: {_shown(known.min(), course.kind)} to {_shown(known.max(), course.kind)}"
    return svg(course.name, said, draw, LOW)


def _top(values: Any, limit: float | None) -> float:
    """As high as the values reach; a limit is shown where that does not make them flat."""
    highest = float(np.nanmax(values))
    return (max(highest, limit) if limit is not None and limit <= 3 * highest else highest) * 1.12 or 1.0


def _days(axes: Any, dates: Sequence[datetime.date]) -> None:
    first, last = dates[0], dates[-1]
    shown = [first, last] if first != last else [last]
    axes.set_xticks([one.toordinal() for one in shown], [one.isoformat() for one in shown])
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
        label.set_horizontalalignment(side if len(shown) > 1 else "center")
    pad = max((last - first).days * 0.02, 0.5)
    axes.set_xlim(first.toordinal() - pad, last.toordinal() + pad)


def _scale(axes: Any, kind: str) -> None:
    axes.yaxis.get_major_locator().set_params(nbins=4)
    if kind == "share":
        top = axes.get_ylim()[1]
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.{0 if top > 0.05 else 1}f} %")
    elif kind == "count":
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _shown(value: float, kind: str) -> str:
    return {"share": f"{value * 100:.2f} %", "count": f"{value:,.0f}", "index": f"{value:.3f}"}[kind]


def draw_score_shares(batch: IntArray, validation: IntArray | None, before: IntArray | None, threshold: float) -> str:
    """Which share of the scores of a batch has which probability, beside labelled messages and the batch before.

    Args:
        batch: scores counted by `models.statistics.stability.count_scores`.
        validation: the same, of labelled messages that were not trained on; None where there are none.
        before: the same, of the batch before; None where there is none.
        threshold: drawn as a line.

    Returns:
        SVG text.
    """
    if not batch.sum():
        return note("scores", "Spam probabilities", NO_MESSAGES)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    others = [("labelled messages", validation, SPAM_COLOUR, "-"), ("batch before", before, INK, ":")]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        shares = rebin_counts(batch) / batch.sum()
        axes.bar(
            edges[:-1], shares, np.diff(edges) * 0.92, align="edge", color=HAM_COLOUR, alpha=0.8, label="this batch"
        )
        least = min(shares[shares > 0])
        for label, counts, colour, style in others:
            if counts is not None and counts.sum():
                found = rebin_counts(counts) / counts.sum()
                axes.stairs(found, edges, color=colour, linestyle=style, linewidth=1.6, label=label, baseline=None)
                least = min(least, min(found[found > 0]))
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label=f"threshold {threshold:.3g}")
        axes.set(xlim=(-0.02, 1.02), yscale="log", ylim=(least * 0.6, 1.3))
        axes.set(xlabel="spam probability", ylabel="share of the scores (logarithmic)")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:g} %")
        axes.minorticks_off()
        legend(figure)

    compared = [label for label, counts, _, _ in others if counts is not None and counts.sum()]
    beside = f", beside {' and '.join(compared)}" if compared else ""
    return svg(
        "scores", f"Shares of {batch.sum():,} scores by spam probability{beside}; threshold {threshold:.3g}", draw
    )


def draw_lengths(lengths: Sequence[int]) -> str:
    """How many messages are how long.

    Args:
        lengths: messages from each of `models.evaluation.text_statistics.LENGTHS` up to the next.

    Returns:
        SVG text.
    """
    total = sum(lengths)
    if not total:
        return note("lengths", "Lengths", NO_MESSAGES)
    names = [f"{low:,} to {high - 1:,}" for low, high in itertools.pairwise(LENGTHS)] + [f"{LENGTHS[-1]:,} and more"]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.barh(range(len(names)), [count / total for count in lengths], color=HAM_COLOUR)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the messages")
        axes.set_ylabel("characters")
        percent(axes.xaxis)

    said = ", ".join(f"{name}: {count / total * 100:.1f} %" for name, count in zip(names, lengths, strict=True))
    return svg("lengths", f"Messages by length in characters: {said}", draw)
