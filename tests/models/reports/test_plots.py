from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.reports import plots
from models.statistics.metrics import evaluate

LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
SCORES = np.array([0.9, 0.8, 0.6, 0.2, 0.7, 0.3, 0.1, 0.1, 0.0, 0.4])
METRICS = evaluate(LABELS, SCORES, 0.5)
HISTORY = [
    {"epoch": 1, "loss": 0.5, "validation_loss": 0.3, "validation_pr_auc": 0.8, "learning_rate": 0.002, "seconds": 3.0},
    {"epoch": 2, "loss": 0.3, "validation_loss": 0.2, "validation_pr_auc": 0.9, "learning_rate": 0.002, "seconds": 3.0},
    {"epoch": 3, "loss": 0.1, "validation_loss": 0.4, "validation_pr_auc": 0.9, "learning_rate": 0.002, "seconds": 3.0},
]
ALL = {
    "roc": lambda: plots.draw_roc(LABELS, SCORES, METRICS),
    "precision-recall": lambda: plots.draw_precision_recall(LABELS, SCORES, METRICS),
    "calibration": lambda: plots.draw_calibration(LABELS, SCORES),
    "scores": lambda: plots.draw_scores(LABELS, SCORES, 0.5),
    "confusion": lambda: plots.draw_confusion(METRICS),
    "history": lambda: plots.draw_history(HISTORY),
    "note": lambda: plots.draw_history([]),
}
each_plot = pytest.mark.parametrize("draw", [pytest.param(draw, id=name) for name, draw in ALL.items()])
SVG = "{http://www.w3.org/2000/svg}"


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@each_plot
def test_the_same_input_gives_the_same_text(draw: Callable[[], str]) -> None:
    assert draw() == draw()


def test_another_process_gives_the_same_text() -> None:
    code = (
        "import numpy as np; from models.reports import plots; from models.statistics.metrics import evaluate;"
        f"s = np.array({SCORES.tolist()}); y = np.array({LABELS.tolist()});"
        "print(plots.draw_roc(y, s, evaluate(y, s, 0.5)), end='')"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert other.stdout == ALL["roc"]()


@each_plot
def test_a_plot_is_svg_without_external_references(draw: Callable[[], str]) -> None:
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect"
    }  # fmt: skip
    assert re.findall(r"https?:[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"url\((?!#)|href=\"(?!#)|@import|data:|<style|<!DOCTYPE|<\?xml|metadata", svg)


@each_plot
def test_every_reference_inside_a_plot_has_a_target(draw: Callable[[], str]) -> None:
    svg = draw()
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)) <= set(ids)


def test_plots_on_one_page_share_no_id() -> None:
    svgs = [draw() for name, draw in ALL.items() if name != "note"]
    ids = [identifier for svg in svgs for identifier in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))


@each_plot
def test_text_takes_the_colour_of_the_page(draw: Callable[[], str]) -> None:
    svg = draw()
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        assert "fill: currentColor" in element.get("style", "")
    assert set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(href="|url\()#[^")]*', "", svg))) <= {
        plots.SPAM_COLOUR,
        plots.HAM_COLOUR,
    }


def luminance(colour: str) -> float:
    """Returns the relative luminance, WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", [plots.SPAM_COLOUR, plots.HAM_COLOUR])
@pytest.mark.parametrize("page", ["#ffffff", "#15171c"])
def test_the_data_colours_have_enough_contrast_in_light_and_dark_mode(colour: str, page: str) -> None:
    light, dark = sorted([luminance(colour), luminance(page)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


@each_plot
def test_drawing_leaves_matplotlib_as_it_was(draw: Callable[[], str]) -> None:
    before = dict(matplotlib.rcParams)
    draw()
    assert dict(matplotlib.rcParams) == before


def test_drawing_does_not_load_pyplot() -> None:
    code = (
        "import sys; from models.reports import plots; plots.draw_history([]);print('matplotlib.pyplot' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_a_curve_without_both_labels_is_a_note(labels: list[int]) -> None:
    spam, scores = np.array(labels, dtype=bool), np.full(len(labels), 0.4)
    metrics = evaluate(spam, scores, 0.5)
    assert words(plots.draw_roc(spam, scores, metrics)) == [plots.ONE_LABEL]
    assert words(plots.draw_precision_recall(spam, scores, metrics)) == [plots.ONE_LABEL]
    plots.draw_scores(spam, scores, 0.5)
    plots.draw_confusion(metrics)
    plots.draw_calibration(spam, scores)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        ("roc", ["at 0.1 % of ham: 50.0 %", "at 0.5 % of ham: 50.0 %", "at the threshold 0.5"]),
        ("confusion", ["3", "1", "5", "spam caught", "75.0 %", "83.3 %"]),
        ("scores", ["ham", "spam", "threshold 0.5"]),
        ("history", ["training", "validation", "best epoch: 2", "epoch", "loss"]),
    ],
)
def test_a_plot_shows_its_figures(draw: str, expected: list[str]) -> None:
    assert set(expected) <= {line for text in words(ALL[draw]()) for line in text.split("\n")}


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([{"epoch": 1, "loss": 0.5, "validation_loss": 0.4}], id="one epoch"),
        pytest.param([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4}], id="no validation"),
        pytest.param([{"epoch": 1, "loss": float("nan"), "validation_loss": None}], id="gaps alone"),
        pytest.param([{"epoch": 1, "loss": 1.0, "validation_loss": 0.1, "validation_pr_auc": None}], id="no PR AUC"),
        pytest.param([{"epoch": 1, "loss": 0.0, "validation_loss": 0.0}] * 2, id="nothing left to learn"),
    ],
)
def test_a_history_with_gaps_is_drawn(history: list[dict[str, float | None]]) -> None:
    assert "PR AUC" not in plots.draw_history(history)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=30), st.floats(0, 1))
def test_any_scores_can_be_drawn(rows: list[tuple[bool, float]], threshold: float) -> None:
    labels, scores = np.array([r[0] for r in rows], dtype=bool), np.array([r[1] for r in rows], dtype=float)
    metrics = evaluate(labels, scores, threshold)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [
            plots.draw_roc(labels, scores, metrics),
            plots.draw_precision_recall(labels, scores, metrics),
            plots.draw_calibration(labels, scores),
            plots.draw_scores(labels, scores, threshold),
            plots.draw_confusion(metrics),
        ]
    for svg in drawn:
        assert "nan" not in svg
        ElementTree.fromstring(svg)
