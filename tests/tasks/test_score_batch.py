"""ScoreBatch: which settings change its recipe, so that a date is scored again, and which errors it raises."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import InputError
from tasks.artifacts.folders import FolderTarget
from tasks.score_batch import ScoreBatch, require_snapshot


@pytest.mark.parametrize(("threshold", "changes"), [("auto", True), ("0.7", False)])
def test_ham_blocked_share_changes_the_recipe_only_with_an_automatic_threshold(
    set_settings: Callable[..., None], threshold: str, changes: bool
) -> None:
    recipes = []
    for share in ("0.002", "0.01"):
        set_settings("scoring", threshold=threshold, ham_blocked_share=share)
        recipes.append(ScoreBatch(date=datetime.date(2026, 1, 31)).fingerprint())
    assert (recipes[0] != recipes[1]) is changes


def test_a_snapshot_that_was_discarded_while_the_run_waited_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"messages of 2026-01-31 are to be read again.*Run the same command again"):
        require_snapshot(FolderTarget(tmp_path / "gone"), datetime.date(2026, 1, 31))
