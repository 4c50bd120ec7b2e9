"""Tests of the epoch after which a person stops a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import ArtifactError
from models.training.epoch_limit import FILE, EpochLimit


def test_there_is_no_limit_by_default(tmp_path: Path) -> None:
    assert EpochLimit(tmp_path).epoch is None
    assert list(tmp_path.iterdir()) == []


def test_a_limit_is_stored_and_never_raised(tmp_path: Path) -> None:
    assert EpochLimit(tmp_path).stop_after(4) == 4
    assert EpochLimit(tmp_path).stop_after(6) == 4
    assert EpochLimit(tmp_path).stop_after(2) == 2
    assert EpochLimit(tmp_path).epoch == 2
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"last_epoch": "4"}', '{"last_epoch": 0}', "[" * 100_000])
def test_an_unreadable_file_is_refused_and_the_error_says_how_to_fix_it(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ArtifactError, match=r"Delete the file to train all epochs"):
        EpochLimit(tmp_path)
