"""ScoreBatch: what makes it score anew."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest

from tasks.score_batch import ScoreBatch


@pytest.mark.parametrize(("threshold", "anew"), [("auto", True), ("0.7", False)])
def test_another_share_of_ham_scores_anew_only_where_the_threshold_is_found_by_it(
    set_settings: Callable[..., None], threshold: str, anew: bool
) -> None:
    recipes = []
    for share in ("0.002", "0.01"):
        set_settings("scoring", threshold=threshold, ham_blocked_share=share)
        recipes.append(ScoreBatch(date=datetime.date(2026, 1, 31)).fingerprint())
    assert (recipes[0] != recipes[1]) is anew
