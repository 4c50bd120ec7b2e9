"""Settings are checked against their declarations, and again whenever a file, the environment or a value changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import SettingsError
from tasks.settings.checking import check_settings


def test_valid_settings_are_checked_again_after_a_value_changes(set_settings: Callable[..., None]) -> None:
    set_settings("training", epochs="3")
    check_settings()
    set_settings("training", epochs="none")
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"\[training\] epochs"):
            check_settings()
    set_settings("training", epochs="4")
    check_settings()


def test_valid_settings_are_checked_again_after_the_environment_changes(
    set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_settings("training", epochs="3")
    check_settings()
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(tmp_path / "nowhere.cfg"))
    with pytest.raises(SettingsError, match="LUIGI_CONFIG_PATH"):
        check_settings()
