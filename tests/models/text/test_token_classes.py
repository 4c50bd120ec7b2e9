"""The compiled loops find the class that the patterns of `models.text.tokens` give."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from models.text.token_classes import NO_CLASS, find_class
from models.text.tokens import CLASS_PATTERNS, CLASSES

SAMPLES = [
    "", "free", "7", "1.5", "1:30", "5.", ".5", "##", "#", "###", "483##", "x483##", "483###", "087####", "£5",
    "$5", "£", "$", "££5", "£5pm", "$.5", "a@b", "a@b.c", "a@b.c.", "a@.b", "@b.c", "a@b@c.d", "£a@b.c",
    "a.b-c%+@x-y.test", "http://", "http://x", "https://", "https://£", "http:/x", "www.", "www.x", "www", "x.com",
    "x.com.", "x.com/", "x.comx", "x.com/a?b", "x.co.uk", "x..com", ".com", "-.com", "£x.com", "x.com:80",
    "x.com-a", "x_y.com", "a.b/c.com", "com", "^a.me",
]  # fmt: skip
tokens = st.text(st.sampled_from("ab7.@-/:#£$_%wchtpsom"), max_size=12) | st.lists(
    st.sampled_from([*SAMPLES, "com", ".me", "http", "#", "/"]), max_size=3
).map("".join)


def find_fast(token: str) -> str | None:
    content = b"x" + token.encode() + b"x"  # so that a loop that leaves the token finds something else
    number = find_class(np.frombuffer(content, np.uint8), 1, len(content) - 1)
    return None if number == NO_CLASS else CLASSES[number]


def find_by_patterns(token: str) -> str | None:
    return next((name for name, pattern in CLASS_PATTERNS if tf.strings.regex_full_match(token, pattern)), None)


@given(token=tokens)
@example(token="7####")
def test_the_class_of_a_token_is_that_of_the_first_pattern_that_matches(token: str) -> None:
    assert find_fast(token) == find_by_patterns(token)


@pytest.mark.parametrize("token", SAMPLES)
def test_the_class_of_a_sample_is_that_of_the_first_pattern_that_matches(token: str) -> None:
    assert find_fast(token) == find_by_patterns(token)


def test_the_samples_have_every_class() -> None:
    assert {find_fast(token) for token in SAMPLES} == {*CLASSES, None}
    assert not any(re.search(r"\s|[A-Z]", token) for token in SAMPLES)
