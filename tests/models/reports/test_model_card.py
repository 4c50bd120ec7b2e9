from __future__ import annotations

import dataclasses
import datetime
import inspect
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.factors import COMBINED_FACTORS, FACTORS, measure_groups
from models.evaluation.gate import Verdict, compare, judge
from models.reports.model_card import escape_markdown, render_model_card
from models.settings import GateSettings
from models.statistics.calibration import Threshold
from models.statistics.metrics import Metrics, evaluate, metric_descriptions

LABELS, SCORES = np.array([1, 1, 1, 0, 0, 0]), np.array([0.9, 0.8, 0.2, 0.7, 0.1, 0.0])
TEXTS = ["win \u00a35 at win.example", "call 0900 1234", "x" * 130, "Your code is 1234", "see you", "ok"]
METRICS = evaluate(LABELS, SCORES, 0.5)
GATE = GateSettings(resamples=100)


def as_stored(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the values as `metrics.json` stores them."""
    return [dict(json.loads(json.dumps(dataclasses.asdict(value)))) for value in values]


MEASURED = {
    "compared": as_stored(compare(LABELS, SCORES, 1 - SCORES, 0.002, GATE)),
    "groups": as_stored(measure_groups(TEXTS, LABELS, SCORES, 0.5, 0.9, {**FACTORS, "a | b": lambda _: "<x>"})),
    "groups_together": as_stored(measure_groups(TEXTS, LABELS, SCORES, 0.5, 0.9, COMBINED_FACTORS)),
    "confidence": 0.9,
}


def render(**changes: Any) -> str:
    given: dict[str, Any] = {
        "model": "spam_rnn",
        "version": 3,
        "date": datetime.date(2026, 1, 5),
        "metrics": METRICS,
        "threshold": Threshold(0.5),
        "verdict": judge(METRICS),
        "fingerprints": {"corpus": "9c1f22ab34cd56ef", "training": "8899aabbccddeeff"},
        "settings": {"network": {"cell": "gru", "rnn_units": 64}, "training": {"learning_rate": 0.002}},
        "training_data": {"messages": 3612, "spam": 449},
        "evaluation_data": {"messages": 6, "sha256": "3f" * 32},
        "network": {"parameters": 198305, "epochs": 9},
    }
    return render_model_card(**given | changes)


def rows(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = re.split(rf"^#+ {re.escape(heading)}$", card, flags=re.MULTILINE)[1]
    table = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert table
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[0].splitlines()]


START = {
    "source": "version:2", "weights_sha256": "ab" * 32, "split": "same", "taken": ["embedding/words"],
    "fresh": [], "fitted": ["linear/bias"], "unused": [], "token_rows_taken": 90, "token_rows_fresh": 10,
}  # fmt: skip


def test_the_card_says_what_the_training_started_from() -> None:
    assert "Start of the training" not in render()
    table = dict(rows(render(start=START), "Start of the training"))
    assert table["Source"] == "version:2"
    assert table["weights, SHA-256"] == "ab" * 32
    assert "has not seen the messages of the test part" in table["Messages of the source"]
    assert table["Rows of embedding/words taken"] == "90; fresh: 10"
    assert table["Variables started fresh"] == "none"
    assert table["Variables fitted to the training part"] == "linear/bias"


@pytest.mark.parametrize(("split", "expected"), [("other", "with other"), ("unknown", "unknown; they may be in the")])
def test_the_card_says_when_the_source_may_know_the_test_part(split: str, expected: str) -> None:
    table = dict(rows(render(start={**START, "split": split}), "Start of the training"))
    assert table["Messages of the source"].startswith(expected)


SELF_TRAINING = {
    "teacher": "2c9b00a8a30a8590",
    "selection": "53e99f03774e8ccf",
    "window": {"first": "2026-10-03", "last": "2026-11-01"},
    "batches": [{"batch": 1, "date": "2026-10-03"}, {"batch": 4, "date": "2026-10-05"}],
    "left_out": [{"batch": 3, "date": "2026-10-04", "reason": "withdrawn"}],
    "thresholds": {"spam": 0.9, "ham": 0.02},
    "weight": 0.3,
    "steps": {"sampled": {"spam": 20, "ham": 90, "unsure": 9}, "balanced": {"spam": 10, "ham": 50, "unsure": 0}},
}


def test_the_card_says_what_a_self_trained_model_learned_from() -> None:
    card = render(self_training=SELF_TRAINING)
    table = dict(rows(card, "Self-training"))
    assert table["Teacher, trained on labelled messages alone"] == "2c9b00a8a30a8590"
    assert table["Dates"] == "2026-10-03 to 2026-11-01"
    assert table["Batches"] == "1 (2026-10-03), 4 (2026-10-05)"
    assert table["Batches left out"] == "3 (2026-10-04): withdrawn"
    assert table["Taken as spam"] == "probability of at least 0.9"
    assert table["Messages, balanced"] == "10 spam, 50 ham, 0 unsure"
    assert "Self-training" not in render()


def test_the_card_says_in_whose_place_a_model_is_published() -> None:
    card = render(self_trained_refused="PR AUC 0.9 is below that of its teacher")
    assert "### Self-training" in card
    assert "refused: PR AUC 0.9 is below that of its teacher" in card


def test_the_card_has_the_nine_sections_of_mitchell_et_al_in_their_order() -> None:
    assert re.findall(r"^## (.*)$", render(), flags=re.MULTILINE) == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
    ]


@pytest.mark.parametrize(
    "part",
    [
        "# Model card: spam\\_rnn, version 3",
        "- Date: 2026-01-05",
        "- Verdict: approved",
        "| training | 8899aabbccddeeff |",
        "| rnn\\_units | 64 |",
        "| learning\\_rate | 0.002 |",
        "| messages | 3612 |",
        "| messages | 6 |",
        "`predict_spam` | `texts`: string [n]",
        "`scores`: float32 [n], the probability of spam",
        "`inputs`: string [n], each a serialized `tf.Example` with the bytes feature `text`",
        "`classes`: string [n, 2] and `scores`: float32 [n, 2], ham and spam",
        "Of 3 spam messages 2 were caught",
        "The test part holds 3 spam and 3 ham messages",
    ],
)
def test_the_card_contains(part: str) -> None:
    assert part in render()


def test_every_figure_is_in_the_card_with_its_meaning() -> None:
    card = render()
    shown = {cells[0]: cells[1] for cells in rows(card, "All test messages")[2:]}
    assert shown == {m.title: m.format(getattr(METRICS, name)) for name, m in metric_descriptions().items()}
    assert all(f"- {meaning.title}: {meaning.sentence}" in card for meaning in metric_descriptions().values())


@pytest.mark.parametrize("in_service", [None, METRICS])
@pytest.mark.parametrize("measured", [{}, MEASURED])
def test_every_row_of_a_table_has_as_many_cells_as_its_heading(
    in_service: Metrics | None, measured: dict[str, Any]
) -> None:
    card = render(in_service=in_service, **measured)
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
        assert len(table.splitlines()) > 2
    assert ("Previously in service" in card) is (in_service is not None)
    parts = ("### Uncertainty of the figures", "### Unitary results", "### Intersectional results", "- Measured below")
    assert [part in card for part in parts] == [bool(measured)] * len(parts)
    assert ("Not measured separately" in card) is not bool(measured)


def test_each_group_of_messages_and_each_interval_is_in_the_card() -> None:
    card = render(in_service=METRICS, **MEASURED)
    assert "With 90 % intervals (Wilson)" in card
    unitary = {(cells[0], cells[1]): cells[2:] for cells in rows(card, "Unitary results: single factors")[2:]}
    assert len(unitary) == len(MEASURED["groups"])
    assert unitary["Long number", "with a number of four digits or more"] == [
        "1 of 1", "100.0 % (27.0 to 100.0)", "1 of 1", "100.0 % (27.0 to 100.0)",
    ]  # fmt: skip
    assert unitary["Money", "with a sum of money"][2:] == ["0 of 0", "no messages"]
    assert unitary["a \\| b", "\\<x\\>"][0] == "2 of 3"
    together = rows(card, "Intersectional results: combined factors")[2:]
    assert len(together) == len(MEASURED["groups_together"])
    (pr_auc,) = (cells for cells in rows(card, "Uncertainty of the figures") if cells[0] == "PR AUC")
    new, difference = MEASURED["compared"][0]["new"], MEASURED["compared"][0]["difference"]
    assert pr_auc[1] == f"{new['value']:.4f} ({new['low']:.4f} to {new['high']:.4f})"
    assert pr_auc[3] == f"{difference['value']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"


def test_the_card_of_a_refused_model_gives_the_reasons() -> None:
    card = render(verdict=Verdict(False, ["MCC 0.0000 is not above 0"]))
    assert (
        "- Verdict: **not approved**, published because a person overruled the verdict\n  - MCC 0.0000 is not above 0\n"
        in card
    )


def test_a_model_without_test_messages_has_a_card() -> None:
    none = evaluate(np.array([], dtype=bool), np.array([]), 0.5)
    card = render(metrics=none, verdict=judge(none))
    assert "not defined" in card
    assert "The test part holds" not in card


def test_the_same_input_gives_the_same_card_without_trailing_blanks() -> None:
    assert render() == render()
    assert not re.search(r"[ \t]$|\n\n\n", render(in_service=METRICS, **MEASURED), flags=re.MULTILINE)


def test_the_card_takes_no_message() -> None:
    assert set(inspect.signature(render_model_card).parameters) == {
        "model", "version", "date", "metrics", "threshold", "verdict", "fingerprints", "settings", "training_data",
        "evaluation_data", "network", "in_service", "compared", "groups", "groups_together", "confidence",
        "start", "self_training", "self_trained_refused",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (0.1 + 0.2, "0.3"),
        (True, "True"),
        ("a|b", "a\\|b"),
        ("<script>", "\\<script\\>"),
        ("two\nlines", "two lines"),
        ("\u202ex", "\\[U+202E\\]x"),
        ("back\\slash", "back\\\\slash"),
        ("[text](http://x)", "\\[text\\](http://x)"),
    ],
)
def test_untrusted_values_are_shown_literally(value: object, shown: str) -> None:
    assert escape_markdown(value) == shown


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_no_value_breaks_out_of_its_cell(text: str) -> None:
    shown = escape_markdown(text)
    shown.encode("utf-8")
    assert "\n" not in shown
    assert not re.search(r"[\\`*_\[\]<>|&#~$]", re.sub(r"\\[\\`*_\[\]<>|&#~$]", "", shown))
