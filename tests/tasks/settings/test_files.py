"""Configuration files that cannot be read: each gives one line with the file, the line and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.settings.files import find_fault

MARK = b"\xef\xbb\xbf"
# Name, content of luigi.cfg, and the beginning of the message.
FAULTS = [
    ("UTF-8 mark", MARK + b"[run]\ncatch_up_days = 1\n", "luigi.cfg, line 1: a UTF-8 byte order mark"),
    ("UTF-16", "[run]\n".encode("utf-16"), "luigi.cfg: expected UTF-8, received UTF-16"),
    ("latin-1", b"[run]\n# caf\xe9\n", "luigi.cfg, line 2: expected UTF-8, received the byte 0xe9"),
    (
        "repeated section", b"[core]\n[run]\n[core]\n",
        "luigi.cfg, line 3: the section [core] is there twice. Write all its settings below the first one, in line 1.",
    ),
    ("repeated key", b"[run]\na = 1\na = 2\n", "luigi.cfg, line 3: [run] a is there twice"),
    ("no section", b"# settings\na = 1\n", "luigi.cfg, line 2: expected a section, such as [messages],"),
    ("unclosed section", b"[run\na = 1\n", "luigi.cfg, line 1: expected a section"),
    ("no value", b"[run]\na = 1\njust words\n", "luigi.cfg, line 3: expected key = value, received 'just words'"),
    ("control characters", b"[run]\n\x1b[2Jx\n", r"luigi.cfg, line 2: expected key = value, received '\x1b[2Jx'"),
    ("merge conflict", b"[run]\na = 1\n<<<<<<< HEAD\na = 2\n", "luigi.cfg, line 3: the marker <<<<<<< of an"),
    ("end of a conflict", b"[run]\na = 1\n>>>>>>> main\n", "luigi.cfg, line 3: the marker >>>>>>> of an unresolved"),
]  # fmt: skip


@pytest.mark.parametrize(("_name", "content", "message"), FAULTS, ids=[row[0] for row in FAULTS])
def test_a_file_that_cannot_be_parsed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _name: str, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "luigi.cfg").write_bytes(content)
    fault = str(find_fault({}))
    assert fault.startswith(message)
    assert fault.isprintable()


def test_a_line_with_a_password_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "luigi.cfg").write_text("[database]\npassword hunter2\n", encoding="utf-8")
    fault = str(find_fault({}))
    assert "luigi.cfg, line 2" in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize("name", ["client.cfg", "luigi.cfg", "other.cfg"])
def test_a_file_that_luigi_would_skip_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    variables = {"LUIGI_CONFIG_PATH": name} if name == "other.cfg" else {}
    (tmp_path / name).mkdir()
    assert str(find_fault(variables)).startswith(f"{name}: Is a directory")
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to("nowhere")
    assert str(find_fault(variables)).startswith(f"{name}: No such file")
    (tmp_path / name).unlink()
    (tmp_path / name).write_text("[run]\n", encoding="utf-8")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:  # the superuser may read every file
        patch.setattr(Path, "read_bytes", refuse)
        assert str(find_fault(variables)).startswith(f"{name}: Permission denied")
    assert find_fault(variables) is None


VARIABLES = [
    ({"LUIGI_CONFIG_PARSER": "toml"}, "LUIGI_CONFIG_PARSER = toml: expected cfg or no value"),
    ({"LUIGI_CONFIG_PATH": "night.toml"}, "LUIGI_CONFIG_PATH = night.toml: expected a file in the format of luigi.cfg"),
    ({"LUIGI_CONFIG_PATH": "none.cfg"}, "LUIGI_CONFIG_PATH = none.cfg: no such file"),
    ({"LUIGI_CONFIG_PATH": ""}, "None"),
    ({"LUIGI_CONFIG_PARSER": "cfg"}, "None"),
]


@pytest.mark.parametrize(("variables", "message"), VARIABLES)
def test_a_variable_that_names_no_file_of_settings_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "night.toml").write_text("[run]\ncatch_up_days = 1\n", encoding="utf-8")
    assert str(find_fault(variables)).startswith(message)


def test_the_settings_file_of_this_project_has_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    assert find_fault({"LUIGI_CONFIG_PATH": "deploy/nightly.cfg"}) is None
