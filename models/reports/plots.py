"""Draws the plots of the evaluation report as inline SVG. `models.reports.batch_plots` uses the same functions.

The same input gives the same text. Backgrounds are transparent, text and axes take the text colour of the page, and the
two data colours have enough contrast on white and on near-black. A plot contains no message text. The module uses
matplotlib's objects directly and never `pyplot`, which keeps figures alive in a global list.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from models.evaluation.factors import share_interval
from models.statistics.arrays import FloatArray
from models.statistics.curves import (
    CalibrationCurve,
    calibration_curve,
    precision_recall_points,
    roc_points,
    score_histogram,
)
from models.statistics.metrics import Metrics

SPAM_COLOUR = "#d9602a"
HAM_COLOUR = "#3a86d4"
# matplotlib does not know `currentColor`; this colour is its placeholder until the SVG is written.
INK = "#010203"
FAINT = {"color": INK, "alpha": 0.5, "linewidth": 0.8}
WIDTH, HEIGHT = 4.3, 3.6  # inches
STYLE = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.7,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
}
NO_MESSAGES = "Not defined: there are no messages."
ONE_LABEL = "Not defined: all messages have the same label."

Draw = Callable[[Any], None]


def draw_roc(labels: npt.ArrayLike, probabilities: npt.ArrayLike, metrics: Metrics) -> str:
    """Draws the ROC curve. The false positive rate has a logarithmic axis, because low rates matter most.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        metrics: metrics on the same messages; give the marks at the threshold and at 0.1 % and 0.5 % of the ham.

    Returns:
        SVG text; a note if all messages have the same label.
    """
    points = roc_points(labels, probabilities)
    if points is None:
        return draw_note("roc", "ROC curve", ONE_LABEL)
    # A rate of zero is drawn at this value, left of all other rates, because a logarithmic axis has no zero.
    floor = min(1 / metrics.ham, 0.001) / 4

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        rates = np.maximum(points.false_positive_rate, floor)
        axes.plot(rates, points.recall, drawstyle="steps-post", color=SPAM_COLOUR, linewidth=1.8)
        chance = np.geomspace(floor, 1, 50)
        axes.plot(chance, chance, linestyle="--", label="chance", **FAINT)
        _mark_recalls(axes, metrics, floor)
        axes.set(xscale="log", xlim=(floor * 0.9, 1.1), ylim=(0, 1.03), ylabel="spam caught")
        axes.set_xlabel("ham flagged wrongly (logarithmic)")
        axes.set_xticks([floor, 0.001, 0.005, 0.02, 0.1, 1], ["0", "0.1 %", "0.5 %", "2 %", "10 %", "100 %"])
        axes.minorticks_off()
        format_percent_axis(axes.yaxis)
        add_legend(figure)

    caught, wrong = _format_share(metrics.recall), _format_share(metrics.ham_wrongly_flagged)
    description = (
        f"ROC curve: spam caught by ham flagged wrongly, at every threshold. {caught} of the spam is caught for "
        f"{wrong} of the ham at the threshold {metrics.threshold:.3g}, {_format_share(metrics.recall_at_0_1_percent)} "
        f"for at most 0.1 %; area below the curve {metrics.roc_auc or 0:.4f}"
    )
    return render_svg("roc", description, draw)


def _mark_recalls(axes: Any, metrics: Metrics, floor: float) -> None:
    for rate, recall, marker in (
        (0.001, metrics.recall_at_0_1_percent, "s"),
        (0.005, metrics.recall_at_0_5_percent, "D"),
    ):
        axes.plot([rate, rate], [0, recall], linestyle=":", **FAINT)
        label = f"at {rate * 100:g} % of ham: {(recall or 0) * 100:.1f} %"
        axes.plot(rate, recall, marker, color=HAM_COLOUR, markersize=5.5, label=label, linestyle="none")
    axes.plot(
        max(metrics.ham_wrongly_flagged or 0.0, floor),
        metrics.recall,
        "o",
        color=INK,
        fillstyle="none",
        markersize=9,
        linestyle="none",
        label=f"at the threshold {metrics.threshold:.3g}",
    )


def draw_precision_recall(labels: npt.ArrayLike, probabilities: npt.ArrayLike, metrics: Metrics) -> str:
    """Draws the precision-recall curve, in the steps that average precision sums.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        metrics: metrics on the same messages; give the mark at the threshold.

    Returns:
        SVG text; a note if all messages have the same label.
    """
    points = precision_recall_points(labels, probabilities)
    if points is None:
        return draw_note("precision-recall", "Precision-recall curve", ONE_LABEL)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        # Recall falls along the points, so each precision holds until the next point, as in the sum.
        axes.plot(points.recall, points.precision, drawstyle="steps-post", color=SPAM_COLOUR, linewidth=1.8)
        axes.axhline(metrics.spam / metrics.messages, linestyle="--", label="chance", **FAINT)
        if metrics.precision is not None:
            label = f"at the threshold {metrics.threshold:.3g}"
            ring = {"color": INK, "fillstyle": "none", "markersize": 9, "linestyle": "none"}
            axes.plot(metrics.recall, metrics.precision, "o", label=label, **ring)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="recall: spam caught", ylabel="precision: flagged that is spam")
        format_percent_axis(axes.xaxis)
        format_percent_axis(axes.yaxis)
        add_legend(figure)

    description = (
        f"Precision-recall curve: average precision {metrics.pr_auc or 0:.4f}; at the threshold "
        f"{metrics.threshold:.3g} precision {_format_share(metrics.precision)}, recall {_format_share(metrics.recall)}"
    )
    return render_svg("precision-recall", description, draw)


def draw_calibration(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> str:
    """Draws the share of spam by predicted probability, in the bins of the expected calibration error.

    The lower panel shows the number of messages in each bin.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].

    Returns:
        SVG text.
    """
    curve = calibration_curve(labels, probabilities)
    if not len(curve.messages):
        return draw_note("calibration", "Calibration", NO_MESSAGES)

    def draw(figure: Any) -> None:
        axes, counts = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        axes.plot([0, 1], [0, 1], linestyle="--", label="perfect calibration", **FAINT)
        axes.errorbar(
            curve.mean_probability,
            curve.spam_share,
            _interval_lengths(curve),
            fmt="o-",
            color=SPAM_COLOUR,
            markersize=5,
            elinewidth=1,
            label="this model",
        )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.04, 1.04), ylabel="share that is spam")
        format_percent_axis(axes.yaxis)
        middles, widths = (curve.low + curve.high) / 2, (curve.high - curve.low) * 0.85
        counts.bar(middles, curve.messages, widths, bottom=0, color=HAM_COLOUR)
        set_log_count_axis(counts, curve.messages)
        counts.set(xlabel="spam probability", ylabel="messages")
        add_legend(figure)

    description = (
        "Calibration: share that is spam by spam probability, with counts; expected calibration error "
        f"{_format_share(curve.expected_error)}"
    )
    return render_svg("calibration", description, draw)


def _interval_lengths(curve: CalibrationCurve) -> FloatArray:
    """Returns how far the 95 % interval of each share extends down and up: float64 [2, bins]."""
    spam = np.rint(curve.spam_share * curve.messages).astype(int).tolist()
    counts = zip(spam, curve.messages.tolist(), strict=True)
    intervals = [share_interval(count, total, 0.95) for count, total in counts]
    bounds = np.array([(interval.low, interval.high) for interval in intervals if interval]).T
    return np.abs(bounds - curve.spam_share)


def draw_scores(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float) -> str:
    """Draws a histogram of the probabilities of spam and of ham, with a logarithmic axis of counts.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        threshold: drawn as a line.

    Returns:
        SVG text.
    """
    histogram = score_histogram(labels, probabilities)
    if not (histogram.spam.any() or histogram.ham.any()):
        return draw_note("scores", "Spam probabilities", NO_MESSAGES)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        middles, width = (histogram.edges[:-1] + histogram.edges[1:]) / 2, np.diff(histogram.edges) * 0.42
        axes.bar(middles - width / 2, histogram.ham, width, color=HAM_COLOUR, label="ham")
        axes.bar(middles + width / 2, histogram.spam, width, color=SPAM_COLOUR, label="spam")
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label=f"threshold {threshold:.3g}")
        axes.set(xlim=(-0.02, 1.02), xlabel="spam probability", ylabel="messages (logarithmic)")
        set_log_count_axis(axes, np.concatenate([histogram.ham, histogram.spam]))
        add_legend(figure, columns=3)

    description = (
        f"Histogram of the spam probabilities of {histogram.ham.sum():,} ham and {histogram.spam.sum():,} spam "
        f"messages, and the threshold {threshold:.3g}"
    )
    return render_svg("scores", description, draw)


def draw_confusion(metrics: Metrics) -> str:
    """Draws the confusion matrix at the threshold: four counts, each with its share of the spam or of the ham.

    Returns:
        SVG text.
    """
    cells = (
        (0, 1, metrics.true_positives, metrics.spam, "spam caught", HAM_COLOUR),
        (1, 1, metrics.false_negatives, metrics.spam, "spam missed", SPAM_COLOUR),
        (0, 0, metrics.false_positives, metrics.ham, "ham flagged wrongly", SPAM_COLOUR),
        (1, 0, metrics.true_negatives, metrics.ham, "ham let through", HAM_COLOUR),
    )

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        for cell in cells:
            _draw_cell(axes, *cell)
        axes.set(xlim=(0, 2), ylim=(0, 2))
        axes.set_xticks([0.5, 1.5], ["flagged as spam", "let through"])
        axes.set_yticks([0.5, 1.5], ["ham", "spam"])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    counts = ", ".join(f"{count:,} {words}" for _, _, count, _, words, _ in cells)
    return render_svg("confusion", f"Confusion matrix at the threshold {metrics.threshold:.3g}: {counts}", draw)


def _draw_cell(axes: Any, left: int, bottom: int, count: int, total: int, words: str, colour: str) -> None:
    share = count / total if total else 0.0
    axes.add_patch(Rectangle((left + 0.02, bottom + 0.02), 0.96, 0.96, facecolor=colour, alpha=0.12 + 0.38 * share))
    centred = {"horizontalalignment": "center", "verticalalignment": "center"}
    axes.text(left + 0.5, bottom + 0.6, f"{count:,}", fontsize=17, **centred)
    axes.text(left + 0.5, bottom + 0.36, words, fontsize=9, **centred)
    if total:
        axes.text(left + 0.5, bottom + 0.2, f"{share * 100:.1f} %", fontsize=9, **centred)


def draw_history(history: Sequence[Mapping[str, float | None]]) -> str:
    """Draws the losses by epoch with the best epoch marked, and below them the validation PR AUC if there is one.

    Args:
        history: one mapping for each epoch with `epoch`, `loss`, `validation_loss` and optionally
            `validation_pr_auc`. A value that is missing, None or NaN leaves a gap.

    Returns:
        SVG text.
    """
    if not history:
        return draw_note("history", "Training history", "No epoch was recorded.")
    epochs = _column(history, "epoch")
    pr_auc = _column(history, "validation_pr_auc")
    ranked = bool(np.isfinite(pr_auc).any())

    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1 + ranked, sharex=True, height_ratios=[2, 1][: 1 + ranked]))
        _draw_losses(panels[0], epochs, history)
        if ranked:
            panels[1].plot(epochs, pr_auc, "s-", color=SPAM_COLOUR, markersize=3)
            panels[1].set_ylabel("validation\nPR AUC")
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        figure.align_ylabels()
        add_legend(figure, columns=3)

    description = (
        f"Training history: loss and validation loss by epoch, {len(history)} epochs{_describe_best_epoch(history)}"
    )
    return render_svg("history", description, draw)


def _find_best_epoch(history: Sequence[Mapping[str, float | None]]) -> int | None:
    """Returns the index of the epoch with the lowest validation loss; None if there is no validation loss."""
    validation = _column(history, "validation_loss")
    return int(np.nanargmin(validation)) if np.isfinite(validation).any() else None


def _describe_best_epoch(history: Sequence[Mapping[str, float | None]]) -> str:
    best = _find_best_epoch(history)
    return "" if best is None else f"; the best is epoch {_column(history, 'epoch')[best]:g}"


def _draw_losses(axes: Any, epochs: FloatArray, history: Sequence[Mapping[str, float | None]]) -> None:
    validation = _column(history, "validation_loss")
    axes.plot(epochs, _column(history, "loss"), "o--", color=HAM_COLOUR, markersize=3, label="training")
    axes.plot(epochs, validation, "s-", color=SPAM_COLOUR, markersize=3, label="validation")
    best = _find_best_epoch(history)
    if best is not None:
        axes.axvline(epochs[best], color=INK, linestyle=":", linewidth=1, label=f"best epoch: {epochs[best]:g}")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)


def _format_share(share: float | None) -> str:
    return "not defined" if share is None else f"{share * 100:.1f} %"


def _column(history: Sequence[Mapping[str, float | None]], key: str) -> FloatArray:
    return np.array([np.nan if epoch.get(key) is None else epoch[key] for epoch in history], dtype=np.float64)


def format_percent_axis(axis: Any) -> None:
    """Formats the labels of an axis of shares in per cent."""
    axis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")


def set_log_count_axis(axes: Any, counts: npt.NDArray[Any]) -> None:
    """Sets the vertical axis to a logarithmic scale of counts."""
    axes.set(yscale="log", ylim=(0.6, max(counts.max(), 10) * 1.6))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.minorticks_off()


def add_legend(figure: Any, columns: int = 2) -> None:
    """Adds the legend above the plot, where it covers nothing."""
    figure.legend(loc="outside upper center", ncols=columns, handlelength=1.6, columnspacing=1.2)


def draw_note(name: str, description: str, words: str, height: float = HEIGHT) -> str:
    """Returns an SVG that contains only a sentence: why the plot cannot be drawn."""

    def draw(figure: Any) -> None:
        figure.text(0.5, 0.5, words, horizontalalignment="center", verticalalignment="center")

    return render_svg(name, f"{description}. {words}", draw, height)


def render_svg(name: str, description: str, draw: Draw, height: float = HEIGHT) -> str:
    """Calls `draw` on a new figure and returns the figure as SVG text.

    Args:
        name: prefix of all ids, unique on the page.
        description: text for readers who cannot see the plot.
        draw: fills the figure.
        height: height in inches, like `WIDTH`. The page scales the plot to the available width.
    """
    with matplotlib.style.context(["default", STYLE | {"svg.hashsalt": name}]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(buffer.getvalue(), name, description)


def _inline(svg: str, name: str, description: str) -> str:
    """Prepares the SVG of a file for an HTML page with other plots: no prologue, no style rules, prefixed ids."""
    _, view_box, body = re.split(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', svg, maxsplit=1)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    body = re.sub(r" *font-family: [^;\"]*;?", "", body.replace(INK, "currentColor"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}" role="img" aria-label="{description}" '
        f'style="stroke-linejoin:round;stroke-linecap:butt;font-family:system-ui,sans-serif">{body}'
    )
