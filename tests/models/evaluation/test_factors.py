from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.factors import COMBINED_FACTORS, FACTORS, measure_groups, share_interval

BOTH = {**FACTORS, **COMBINED_FACTORS}


@pytest.mark.parametrize(
    ("factor", "text", "kind"),
    [
        ("Length", "x", "1 to 40 characters"),
        ("Length", "x" * 41, "41 to 120 characters"),
        ("Length", "x" * 121, "over 120 characters"),
        ("Link", "see https://a.example/x", "with a link"),
        ("Link", "go to www.win", "with a link"),
        ("Link", "go to win.example now", "with a link"),
        ("Link", "Ok...see you at 5.30 p.m. then", "without a link"),
        ("Long number", "call 0900 12 34", "with a number of four digits or more"),
        ("Long number", "text WIN to 80086", "with a number of four digits or more"),
        ("Long number", "at 5.30 or 6, in 24 h", "without a number of four digits or more"),
        ("Money", "only £5", "with a sum of money"),
        ("Money", "Rs. 500 cashback", "with a sum of money"),
        ("Money", "5 pounds of apples, u$", "without a sum of money"),
        ("Characters", "plain", "ASCII only"),
        ("Characters", "caf\u00e9", "with other characters (accents, emoji, other scripts)"),
        ("Length, and a way to answer", "call 09001234", "1 to 40 characters, with a link or long number"),
        ("Length, and a way to answer", "call me", "1 to 40 characters, with neither link nor long number"),
        ("Link and long number", "win.example 1234", "with a link, with a number of four digits or more"),
    ],
)
def test_the_group_of_a_message_follows_from_its_text(factor: str, text: str, kind: str) -> None:
    assert BOTH[factor](text) == kind


def test_a_group_is_measured_at_the_threshold_with_wilsons_interval() -> None:
    texts = ["win \u00a35"] * 10 + ["hello"] * 5
    labels = [1] * 8 + [0] * 7
    scores = [0.9] * 6 + [0.4999] * 2 + [0.5, 0.1] + [0.0] * 5
    by_name = {
        group.name: group for group in measure_groups(texts, labels, scores, 0.5, 0.95, {"Money": FACTORS["Money"]})
    }
    money, without = by_name["with a sum of money"], by_name["without a sum of money"]
    assert (money.spam, money.ham, money.spam_caught, money.ham_flagged) == (8, 2, 6, 1)
    assert (without.spam, without.ham, without.recall) == (0, 5, None)
    # 6 of 8, by the formula on page 209: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), z = 1.959964
    assert money.recall
    assert (money.recall.value, money.recall.low, money.recall.high) == pytest.approx(
        (0.75, 0.40928, 0.92852), abs=1e-5
    )
    assert without.ham_wrongly_flagged
    assert (without.ham_wrongly_flagged.value, without.ham_wrongly_flagged.low) == (0.0, 0.0)


messages = st.lists(st.tuples(st.text(min_size=1), st.booleans(), st.floats(0, 1)), max_size=20)


@settings(deadline=None)
@given(messages, st.floats(0, 1))
def test_each_factor_contains_every_message_once(rows: list[tuple[str, bool, float]], threshold: float) -> None:
    texts, labels, scores = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    all_groups = measure_groups(texts, labels, scores, threshold, 0.95, BOTH)
    assert {group.factor for group in all_groups} == (set(BOTH) if rows else set())
    for factor in {group.factor for group in all_groups}:
        groups = [group for group in all_groups if group.factor == factor]
        assert sum(group.spam for group in groups) == sum(labels)
        assert sum(group.spam + group.ham for group in groups) == len(rows)
        assert sum(group.spam_caught + group.ham_flagged for group in groups) == sum(
            score >= threshold for score in scores
        )
        assert all(group.spam_caught <= group.spam and group.ham_flagged <= group.ham for group in groups)
        assert all(group.spam + group.ham for group in groups)


def test_an_empty_group_has_no_share_and_texts_must_match_labels() -> None:
    assert share_interval(0, 0, 0.95) is None
    with pytest.raises(ValueError, match="Expected as many texts as labels"):
        measure_groups(["a"], [], [], 0.5, 0.95, FACTORS)
