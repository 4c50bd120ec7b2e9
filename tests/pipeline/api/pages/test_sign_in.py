"""Where a person is sent after signing in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.pages.sign_in import choose_next_page


@pytest.mark.parametrize("path", ["/", "/label", "/label/2026-01-31"])
def test_a_page_of_this_server_is_kept(path: str) -> None:
    assert choose_next_page(path) == path


@given(address=st.text(st.sampled_from("/\\label2026-:.@%#?\n ")) | st.text())
def test_any_other_address_becomes_the_first_page(address: str) -> None:
    chosen = choose_next_page(address)
    assert chosen == "/" or chosen.startswith("/label")
    assert not set(chosen) & set("\\:@%#?\n .")
