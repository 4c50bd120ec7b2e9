"""Draws the plots of the batch reports and of their index, in the style of `models.reports.plots`."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.text_statistics import LENGTH_BOUNDS
from models.reports.plots import (
    FAINT,
    HAM_COLOUR,
    INK,
    NO_MESSAGES,
    SPAM_COLOUR,
    add_legend,
    draw_note,
    format_percent_axis,
    render_svg,
)
from models.statistics.arrays import IntArray
from models.statistics.curves import HISTOGRAM_BINS
from models.statistics.stability import rebin_counts

SMALL_HEIGHT = 1.9  # inches, height of a small chart
_KIND_LABELS = {"share": "share", "count": "number", "index": "index"}


@dataclass(frozen=True)
class Trend:
    """The values of one figure for a series of batches, oldest first.

    Attributes:
        name: name of the chart, unique on the page.
        title: title of the figure.
        kind: `share` (in per cent), `count` or `index`.
        dates: dates of the batches.
        values: value for each batch; None if unknown.
        limits: lowest and highest allowed value; each None if there is no limit.
    """

    name: str
    title: str
    kind: str
    dates: Sequence[datetime.date]
    values: Sequence[float | None]
    limits: tuple[float | None, float | None] = (None, None)


def draw_trend(trend: Trend) -> str:
    """Draws a small chart of a figure by date. The last batch is marked, limits are dashed.

    Returns:
        SVG text; a note if the figure is unknown for all batches.
    """
    values = np.array([np.nan if value is None else value for value in trend.values], np.float64)
    if not np.isfinite(values).any():
        return draw_note(trend.name, trend.title, "No batch has this figure.", SMALL_HEIGHT)
    days = np.array([date.toordinal() for date in trend.dates], np.float64)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(days, values, "-", color=HAM_COLOUR, linewidth=1.5, marker="o", markersize=2.5)
        axes.plot(days[-1:], values[-1:], "o", color=SPAM_COLOUR, markersize=7)
        for limit in trend.limits:
            if limit is not None:
                axes.axhline(limit, linestyle="--", **FAINT)
        axes.set_ylim(0, _find_upper_limit(values, trend.limits[1]))
        _label_dates(axes, trend.dates)
        _format_value_axis(axes, trend.kind)

    finite = values[np.isfinite(values)]
    description = f"{trend.title}, {_KIND_LABELS[trend.kind]} by date of {len(values)} batches, {trend.dates[0]} to "
    description += f"{trend.dates[-1]}: {_format_value(finite.min(), trend.kind)} to "
    description += _format_value(finite.max(), trend.kind)
    return render_svg(trend.name, description, draw, SMALL_HEIGHT)


def _find_upper_limit(values: Any, limit: float | None) -> float:
    """Returns the top of the axis: above the highest value, and above the limit unless that flattens the line."""
    highest = float(np.nanmax(values))
    return (max(highest, limit) if limit is not None and limit <= 3 * highest else highest) * 1.12 or 1.0


def _label_dates(axes: Any, dates: Sequence[datetime.date]) -> None:
    first, last = dates[0], dates[-1]
    labelled = [first, last] if first != last else [last]
    axes.set_xticks([date.toordinal() for date in labelled], [date.isoformat() for date in labelled])
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
        label.set_horizontalalignment(side if len(labelled) > 1 else "center")
    pad = max((last - first).days * 0.02, 0.5)
    axes.set_xlim(first.toordinal() - pad, last.toordinal() + pad)


def _format_value_axis(axes: Any, kind: str) -> None:
    axes.yaxis.get_major_locator().set_params(nbins=4)
    if kind == "share":
        top = axes.get_ylim()[1]
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.{0 if top > 0.05 else 1}f} %")
    elif kind == "count":
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _format_value(value: float, kind: str) -> str:
    return {"share": f"{value * 100:.2f} %", "count": f"{value:,.0f}", "index": f"{value:.3f}"}[kind]


def draw_score_shares(batch: IntArray, validation: IntArray | None, before: IntArray | None, threshold: float) -> str:
    """Draws a histogram of the scores of a batch, with labelled messages and the previous batch for comparison.

    Args:
        batch: scores of the batch, counted by `models.statistics.stability.count_scores`.
        validation: counts for labelled messages that were not trained on; None if there are none.
        before: counts for the previous batch; None if there is none.
        threshold: drawn as a line.

    Returns:
        SVG text.
    """
    if not batch.sum():
        return draw_note("scores", "Spam probabilities", "Not defined: no message has a score.")
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    references = [("labelled messages", validation, SPAM_COLOUR, "-"), ("previous batch", before, INK, ":")]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        shares = rebin_counts(batch) / batch.sum()
        axes.bar(
            edges[:-1], shares, np.diff(edges) * 0.92, align="edge", color=HAM_COLOUR, alpha=0.8, label="this batch"
        )
        min_share = min(shares[shares > 0])
        for label, counts, colour, style in references:
            if counts is not None and counts.sum():
                reference = rebin_counts(counts) / counts.sum()
                axes.stairs(reference, edges, color=colour, linestyle=style, linewidth=1.6, label=label, baseline=None)
                min_share = min(min_share, min(reference[reference > 0]))
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label=f"threshold {threshold:.3g}")
        axes.set(xlim=(-0.02, 1.02), yscale="log", ylim=(min_share * 0.6, 1.3))
        axes.set(xlabel="spam probability", ylabel="share of the scores (logarithmic)")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:g} %")
        axes.minorticks_off()
        add_legend(figure)

    compared = [label for label, counts, _, _ in references if counts is not None and counts.sum()]
    comparison = f", compared with {' and '.join(compared)}" if compared else ""
    description = f"Shares of {batch.sum():,} scores by spam probability{comparison}; threshold {threshold:.3g}"
    return render_svg("scores", description, draw)


def draw_lengths(lengths: Sequence[int]) -> str:
    """Draws the share of messages by length.

    Args:
        lengths: number of messages from each of `models.evaluation.text_statistics.LENGTH_BOUNDS` up to the next.

    Returns:
        SVG text.
    """
    total = sum(lengths)
    if not total:
        return draw_note("lengths", "Lengths", NO_MESSAGES)
    names = [f"{low:,} to {high - 1:,}" for low, high in itertools.pairwise(LENGTH_BOUNDS)] + [
        f"{LENGTH_BOUNDS[-1]:,} and more"
    ]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.barh(range(len(names)), [count / total for count in lengths], color=HAM_COLOUR)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the messages")
        axes.set_ylabel("characters")
        format_percent_axis(axes.xaxis)

    shares = ", ".join(f"{name}: {count / total * 100:.1f} %" for name, count in zip(names, lengths, strict=True))
    return render_svg("lengths", f"Messages by length in characters: {shares}", draw)
