"""Messages: the same bytes from Python strings and from Arrow strings."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hashing.arrow_strings import from_buffers
from models.text.texts import as_buffers, take

strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=8)


@pytest.mark.parametrize("kind", [None, pa.string(), pa.large_string()])
@given(texts=strings)
def test_messages_keep_their_bytes(kind: pa.DataType | None, texts: list[str]) -> None:
    content, starts = as_buffers(texts if kind is None else pa.array(texts, kind))
    assert from_buffers(content, starts[:-1]).to_pylist() == texts


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    content, _ = as_buffers(["a\ud800b"])
    assert content.tobytes().decode() == "a\ufffdb"


@pytest.mark.parametrize("kind", [list, pa.array])
def test_some_of_the_messages_are_taken_in_order(kind: type) -> None:
    assert [str(text) for text in take(kind(["a", "b", "c"]), [2, 0])] == ["c", "a"]
