"""Tests which messages of a chunk are rejected before it is scored, and why."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.database.chunks import find_rejection, find_rejections
from tasks.sources.snapshots import SnapshotChunk

NUL = "holds a NUL"


@pytest.mark.parametrize(
    ("message_id", "text", "fault", "first_row", "reason", "detail"),
    [
        ("a", "x", None, None, None, None),
        (" ", "x", None, None, None, None),
        ("0", "\u200b", None, None, None, None),
        ("\U0001f600" * 255, "x", None, None, None, None),
        (None, "x", None, None, "missing message_id", None),
        ("", "", None, None, "missing message_id", None),
        ("a", None, None, None, "empty text", None),
        ("a", "\u2003\u00a0\n", None, None, "empty text", None),
        (None, None, "wrong number of fields", None, "unreadable row", "wrong number of fields"),
        ("x" * 256, "x", None, None, "unusable message_id", "256 characters, and 255 are kept"),
        ("a\0b", "x", None, None, "unusable message_id", NUL),
        ("a\0b", "x", None, 3, "unusable message_id", NUL),
        ("a\0b", "", None, None, "empty text", None),
        ("a", "x", None, 3, "repeated message_id", "row 3 has it already"),
        ("a", " ", None, 3, "empty text", None),
        ("a", "x", "bad row", 3, "unreadable row", "bad row"),
    ],
)
def test_a_message_is_rejected_for_its_first_fault(
    message_id: str | None,
    text: str | None,
    fault: str | None,
    first_row: int | None,
    reason: str | None,
    detail: str | None,
) -> None:
    found = find_rejection(7, message_id, text, fault, first_row)
    assert (found and found.reason) == reason
    assert found is None or (found.row_number, found.message_id, found.detail) == (7, message_id, detail)


ids = st.sampled_from([None, "", " ", "a", "\u00e9", "\u00e9" * 200, "x" * 255, "x" * 256, "\0", "a\0b"])
texts = st.none() | st.text(st.sampled_from(" \t\n\v\x1c\x85\u00a0\u2003\u200b\u3000x\u4e2d"), max_size=3)
faults = st.sampled_from([None, None, None, "", "bad row: x"])
first_rows = st.sampled_from([None, None, 3])


@given(
    rows=st.lists(st.tuples(ids, texts, faults, first_rows), max_size=20),
    kind=st.sampled_from([pa.string(), pa.large_string()]),
)
def test_rejections_of_a_chunk_equal_the_rejections_of_its_rows(
    rows: list[tuple[str | None, str | None, str | None, int | None]], kind: pa.DataType
) -> None:
    columns = zip(*rows, strict=True) if rows else [()] * 4
    arrays = (
        pa.array(values, kind_of) for values, kind_of in zip(columns, [kind, kind, kind, pa.int64()], strict=True)
    )
    chunk = SnapshotChunk(1, 51, np.arange(51, 51 + len(rows)), *arrays)
    expected = {index: find_rejection(51 + index, *row) for index, row in enumerate(rows)}
    assert find_rejections(chunk) == {index: rejected for index, rejected in expected.items() if rejected is not None}
