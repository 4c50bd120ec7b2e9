"""The selection of weakly labelled texts: its limits, and nights that are poisoned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.self_training.near_copies import collect_keys, near_copy_keys
from models.training.self_training.selection import (
    MAX_CLASS_RATIO,
    Limits,
    Selection,
    balance_classes,
    bound_weight,
    label_texts,
    select_texts,
)

LIMITS = Limits(spam_from=0.9, ham_to=0.02, weight=0.3, labelled=1000)
CHAT = [f"{name}, {verb} {thing}" for name in ("mum", "dan", "lee", "joy") for verb in ("bring", "did you see", "buy")
        for thing in ("the keys to aunt flo", "my blue jumper upstairs", "milk and bread after work")]  # fmt: skip
SPAM = [f"{prize} is yours, {act}" for prize in ("a cruise for two", "a golden watch", "your gift card", "cheap loan")
        for act in ("claim it by phone", "reply YES to collect", "tap the link below to get it")]  # fmt: skip


def select(texts: list[str], probabilities: list[float], labelled: list[str] | None = None) -> Selection:
    return select_texts(texts, np.array(probabilities), collect_keys(labelled or []), LIMITS)


probabilities = st.lists(
    st.floats(0, 1) | st.sampled_from([0.0, 0.02, 0.9, 1.0, float("nan")]), max_size=30
)  # fmt: skip
words = st.sampled_from(["win", "cash", "now", "mum", "home", "late", "bus", "tea", "code", "call"])


@given(st.data(), probabilities)
def test_every_limit_holds_whatever_the_messages(data: st.DataObject, probabilities: list[float]) -> None:
    text = st.lists(words, min_size=1, max_size=8).map(" ".join)
    texts = [data.draw(text) for _ in probabilities]
    labelled = data.draw(st.lists(text, max_size=3))
    selection = select(texts, probabilities, labelled)
    chosen, scores = [texts[row] for row in selection.rows], np.array(probabilities)[selection.rows]
    assert len(selection.labels) == len(chosen)
    assert (scores[selection.labels == 1] >= LIMITS.spam_from).all()
    assert (scores[selection.labels == 0] <= LIMITS.ham_to).all()
    counts = np.bincount(selection.labels, minlength=2)
    assert counts.max() <= MAX_CLASS_RATIO * counts.min()
    keys = [near_copy_keys(text) for text in chosen]
    assert all(a.isdisjoint(b) for index, a in enumerate(keys) for b in keys[:index])
    assert all(key.isdisjoint(collect_keys(labelled)) for key in keys)
    assert selection.weight <= LIMITS.weight
    steps = [sum(step.values()) for step in selection.counts.values()]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == len(chosen)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0.001, 1))
def test_the_total_weight_is_at_most_that_of_the_labelled_messages(texts: int, labelled: int, weight: float) -> None:
    bounded = bound_weight(texts, Limits(0.9, 0.02, weight, labelled))
    assert 0 < bounded <= weight
    assert texts * bounded <= labelled * (1 + 1e-9)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60))
def test_a_larger_class_is_cut_to_its_first_messages(labels: list[int]) -> None:
    array = np.array(labels, np.int32)
    kept = balance_classes(array, array >= 0)
    for label, other in ((0, 1), (1, 0)):
        expected = min(
            labels.count(label), MAX_CLASS_RATIO * labels.count(other), MAX_CLASS_RATIO * labels.count(label)
        )
        assert kept[array == label].sum() == expected
        assert kept[array == label][:expected].all()
    assert not kept[array == -1].any()


def test_a_text_without_a_probability_and_an_unsure_one_have_no_label() -> None:
    labels = label_texts(np.array([np.nan, 0.5, 0.9, 0.02, 0.8999, 0.0201]), LIMITS)
    assert labels.tolist() == [-1, -1, 1, 0, -1, -1]


def test_nights_without_messages_or_without_spam_give_nothing() -> None:
    assert len(select([], []).rows) == 0
    assert len(select(CHAT, [0.0] * len(CHAT)).rows) == 0


def test_spam_that_is_disguised_as_chat_and_unsure_is_left_out() -> None:
    disguised = [f"{chat} {spam} {chat}" for chat, spam in zip(CHAT, SPAM, strict=False)]
    texts = [*CHAT, *SPAM, *disguised]
    selection = select(texts, [0.0] * len(CHAT) + [0.99] * len(SPAM) + [0.4] * len(disguised))
    assert set(selection.rows) <= set(range(len(CHAT) + len(SPAM)))
    assert selection.counts["sampled"]["unsure"] == len(disguised)


@pytest.mark.parametrize("probability", [0.99, 0.0])
def test_a_campaign_of_a_thousand_copies_counts_as_one_message_and_not_at_all_if_it_is_labelled(
    probability: float,
) -> None:
    campaign = [f"Huge sale of garden chairs this weekend only, code {number}" for number in range(1000)]
    texts = [*campaign, *CHAT, *SPAM]
    scores = [probability] * 1000 + [0.0] * len(CHAT) + [0.99] * len(SPAM)
    without = select([*CHAT, *SPAM], scores[1000:])
    selection = select(texts, scores)
    assert len(selection.rows) == len(without.rows) + 1
    labelled = select(texts, scores, ["HUGE sale of garden chairs this weekend only! code 7"])
    assert len(labelled.rows) == len(without.rows)
    assert labelled.rows.min() >= 1000


def test_a_night_in_another_language_that_the_teacher_takes_for_one_class_is_cut() -> None:
    table = str.maketrans("aeioubcdfghjklmnpqrstvwxyz", "iouaegklpdtzvnrmbwshfcxjqy")
    foreign = [f"{text} {end}".translate(table) for text in CHAT for end in ("soon", "later please", "or call back")]
    selection = select([*foreign, *CHAT, *SPAM], [0.99] * len(foreign) + [0.0] * len(CHAT) + [0.99] * len(SPAM))
    counts = np.bincount(selection.labels, minlength=2)
    assert counts[1] <= MAX_CLASS_RATIO * counts[0]
