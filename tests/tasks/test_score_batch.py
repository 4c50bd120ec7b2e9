"""ScoreBatch: which settings change its recipe, so that a date is scored again."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest

from tasks.score_batch import ScoreBatch


@pytest.mark.parametrize(("threshold", "changes"), [("auto", True), ("0.7", False)])
def test_ham_blocked_share_changes_the_recipe_only_with_an_automatic_threshold(
    set_settings: Callable[..., None], threshold: str, changes: bool
) -> None:
    recipes = []
    for share in ("0.002", "0.01"):
        set_settings("scoring", threshold=threshold, ham_blocked_share=share)
        recipes.append(ScoreBatch(date=datetime.date(2026, 1, 31)).fingerprint())
    assert (recipes[0] != recipes[1]) is changes
