"""Draws the plot of docs/quality.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from baselines import SVM
from comparison import NETWORK, ModelScores
from matplotlib.figure import Figure
from protocol import IntArray
from sklearn.metrics import precision_recall_curve

from models.statistics.curves import calibration_curve


def draw(path: Path, labels: IntArray, scores: dict[tuple[str, int], ModelScores]) -> None:
    """Draws the relevant part of the precision-recall curve, and the calibration curve, to an SVG file."""
    with matplotlib.rc_context({"svg.hashsalt": "spamscore", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 4), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        for (name, seed), model in scores.items():
            is_network = name == NETWORK
            style: dict[str, Any] = {"color": "#d9602a", "alpha": 0.9} if is_network else {"linewidth": 1}
            network_label = (
                f"{name}, every seed"
                if is_network and seed == min(run[1] for run in scores if run[0] == NETWORK)
                else None
            )
            precision, recall, _ = precision_recall_curve(labels, model.clean)
            left.plot(recall, precision, label=network_label if is_network else name, **style)
            if is_network or name == SVM:
                curve = calibration_curve(labels, model.clean)
                dots = {
                    "marker": "o",
                    "markersize": 3,
                    **(style if is_network else {"linewidth": 1, "color": "#3a86d4"}),
                }
                right.plot(
                    curve.mean_probability, curve.spam_share, label=network_label if is_network else name, **dots
                )
        left.set(xlim=(0.75, 1.0), ylim=(0.9, 1.002), xlabel="recall of spam", ylabel="precision")
        right.plot([0, 1], [0, 1], color="#888", linewidth=0.8)
        right.set(xlabel="mean probability of a bin", ylabel="share of spam in it")
        for axes in (left, right):
            axes.grid(alpha=0.2)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8, loc="lower left" if axes is left else "lower right")
        figure.savefig(path, format="svg", metadata={"Date": None})
