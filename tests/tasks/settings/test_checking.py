"""Settings are checked against their declarations, and again whenever a file, the environment or a value changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from luigi.configuration import LuigiConfigParser

from models.errors import SettingsError
from tasks.settings import checking
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


FOREIGN = "[OtherTeamsTask]\nbucket = x\n[s3]\naws_access_key_id = x\n"
OURS = "[run]\ncatch_up_days = 1\n"
# Name, file, its content, and texts of the message; none if it is left alone.
MACHINE_FILES = [
    ("sections of others", "machine.cfg", FOREIGN, ()),
    ("keys of others", "machine.cfg", "[core]\nhdfs_folder = /tmp\n", ()),
    ("in the folder", "luigi.cfg", FOREIGN, ("[OtherTeamsTask]: no such section", "luigi.cfg")),
    ("beside ours", "machine.cfg", OURS + FOREIGN, ("[OtherTeamsTask]: no such section", "machine.cfg")),
    ("misspelt", "machine.cfg", FOREIGN + "[trainng]\n", ("[trainng]: no such section", "did you mean training?")),
    ("in capitals", "machine.cfg", FOREIGN + "[Messages]\n", ("[Messages]: no such section", "did you mean messages?")),
    ("misspelt key", "machine.cfg", "[core]\nlog_levl = INFO\n", ("[core] log_levl: no", "did you mean log_level?")),
    ("unknown key of this project", "machine.cfg", "[run]\nfoo = 1\n", ("[run] foo: no such setting", "machine.cfg")),
]  # fmt: skip


@pytest.fixture
def read_file(
    set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str, str], None]:
    """Writes a file and lets Luigi read it, as if it were in one of its places."""

    def read(name: str, content: str) -> None:
        (tmp_path / name).write_text(content, encoding="utf-8")
        monkeypatch.setattr(LuigiConfigParser, "_config_paths", [name])
        LuigiConfigParser.instance().read(name)

    return read


@pytest.mark.parametrize(("_name", "file", "content", "texts"), MACHINE_FILES, ids=[row[0] for row in MACHINE_FILES])
def test_sections_of_other_projects_are_left_alone_in_a_file_for_the_whole_machine(
    read_file: Callable[[str, str], None], _name: str, file: str, content: str, texts: tuple[str, ...]
) -> None:
    read_file(file, content)
    if not texts:
        check_settings()
        return
    with pytest.raises(SettingsError) as raised:
        check_settings()
    assert all(text in str(raised.value) for text in texts)


def test_a_file_in_etc_is_for_the_whole_machine_even_with_sections_of_this_project(
    read_file: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "MACHINE_FILES", ("etc.cfg",))
    read_file("etc.cfg", OURS + FOREIGN)
    check_settings()
