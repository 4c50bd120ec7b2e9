"""The sample of texts: which texts it has, and that its memory is bounded."""

from __future__ import annotations

import tracemalloc

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from models.training.self_training.sample import TextSample

chunks = st.lists(st.lists(st.text("abc", max_size=3), max_size=12), max_size=6)


@given(chunks, st.integers(1, 8), st.integers(0, 3), st.randoms())
def test_the_sample_depends_on_the_set_of_texts_and_the_seed_alone(chunks, size, seed, random) -> None:
    texts = [text for chunk in chunks for text in chunk]
    first, second = TextSample(size, seed), TextSample(size, seed)
    for number, chunk in enumerate(chunks):
        first.add(pa.array(chunk, pa.string()), number)
    random.shuffle(texts)
    second.add([*texts, *texts], 0)
    assert first.texts == second.texts
    assert len(first.texts) == len(set(first.texts)) == min(size, len(set(texts)))
    assert len(first.groups) == len(first.texts)


@given(chunks)
def test_a_text_has_the_group_of_its_first_occurrence(chunks: list[list[str]]) -> None:
    sample = TextSample(1000, 7)
    for number, chunk in enumerate(chunks):
        sample.add(chunk, number)
    for text, group in zip(sample.texts, sample.groups, strict=True):
        assert group == next(number for number, chunk in enumerate(chunks) if text in chunk)


def test_another_seed_gives_another_sample_of_about_the_same_shares() -> None:
    texts = [f"{'spam' if number % 4 == 0 else 'ham'} {number}" for number in range(4000)]
    samples = []
    for seed in (1, 2):
        sample = TextSample(1000, seed)
        sample.add(texts, 0)
        samples.append(sample.texts)
        assert 0.2 < sum(text.startswith("spam") for text in sample.texts) / 1000 < 0.3
    assert samples[0] != samples[1]


def test_memory_is_bounded_by_the_sample_not_by_the_messages() -> None:
    sample = TextSample(100, 7)
    sample.add(["warm up"], 0)
    tracemalloc.start()
    for chunk in range(50):
        sample.add([f"message {chunk} {row} {'x' * 200}" for row in range(2000)], chunk)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sample.texts) == 100
    assert kept < 200_000  # 100,000 messages of these have 25 MB
    assert peak < 5_000_000
