"""Paths of files: the home folder, the date, patterns, and what a missing file says."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from tasks.artifacts.fingerprint import file_sha256
from tasks.scheduler import failures
from tasks.sources.paths import ExternalFile, FileRows, expand_path, find_files, hash_files, is_dated_path
from tasks.sources.rows import SourceRow, fault_kind

DATE = datetime.date(2026, 1, 31)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, which is also the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


@pytest.mark.parametrize(
    ("path", "expanded", "dated"),
    [
        ("in/a.csv", "in/a.csv", False),
        ("~/a.csv", "HOME/a.csv", False),
        ("in/~a.csv", "in/~a.csv", False),
        ("in/{date}.csv", "in/2026-01-31.csv", True),
        ("in/{date:%Y%m%d}.csv", "in/20260131.csv", True),
        ("~/{date:%Y/%m}/{date}-*.csv", "HOME/2026/01/2026-01-31-*.csv", True),
    ],
)
def test_home_and_date_are_filled_in(folder: Path, path: str, expanded: str, dated: bool) -> None:
    assert expand_path(path, DATE) == expanded.replace("HOME", str(folder))
    assert is_dated_path(path) is dated


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("in/*.csv", ["in/a.csv", "in/b.csv", "in/c10.csv", "in/c9.csv"]),
        ("in/c?.csv", ["in/c9.csv"]),
        ("in/[ab].csv", ["in/a.csv", "in/b.csv"]),
        ("in/**/*.csv", ["in/a.csv", "in/b.csv", "in/c10.csv", "in/c9.csv", "in/deep/down/a.csv"]),
        ("in/a.csv", ["in/a.csv"]),
        ("odd/[a].csv", ["odd/[a].csv"]),
        ("in/*.tsv", []),
        ("nowhere.csv", []),
        ("in", ["in"]),
    ],
)
def test_a_pattern_matches_files_in_the_order_of_their_names(folder: Path, pattern: str, names: list[str]) -> None:
    write(folder, "in/b.csv", "in/c9.csv", "in/a.csv", "in/c10.csv", "in/.hidden.csv", "in/x.txt", "in/deep/down/a.csv")
    write(folder, "odd/[a].csv", "odd/a.csv")
    assert [str(path) for path in find_files(pattern)] == names
    assert [str(path) for path in find_files(folder / pattern)] == [f"{folder}/{name}" for name in names]


def test_the_hash_covers_the_content_of_all_files_in_their_order(folder: Path) -> None:
    write(folder, "in/a", "in/b")
    alone, both = hash_files("in/a"), hash_files("in/*")
    assert alone == file_sha256(Path("in/a"))
    (folder / "in/a").rename(folder / "in/c")
    assert hash_files("in/*") not in (alone, both)
    (folder / "in/b").unlink()
    assert hash_files("in/*") == alone
    assert {hash_files("in/x"), hash_files("in"), hash_files("in/x*")} == {"absent"}


def test_a_fault_names_the_file_and_its_row_if_there_are_several_files() -> None:
    rows = [
        SourceRow(number, {}, fault) for number, fault in enumerate([None, "bad", "bad: x", "bad", "bad (line 3)"], 1)
    ]
    alone = FileRows([Path("a")], [0])
    assert list(alone.name_files(rows)) == rows
    several = FileRows([Path("a"), Path("empty"), Path("b")], [0, 2, 2])
    faults = [row.fault for row in several.name_files(rows)]
    assert faults == [
        None, "bad: in row 2 of a", "bad: x, in row 1 of b", "bad: in row 2 of b", "bad (line 3): in row 3 of b",
    ]  # fmt: skip
    assert {fault_kind(fault) for fault in faults if fault} == {"bad"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("in/x.csv", "no such file (looked in {folder}). Provide the file or correct the setting, and run again."),
        ("in/*.tsv", "no file matches (looked in {folder}/in). Provide the file"),
        ("none/*.csv", "no file matches (looked in {folder}/none)."),
        ("in", "expected a file, received the folder in. Name the files in it, such as in/*.csv, and run again."),
        ("in/*", "expected a file, received the folder in/deep. Name the files in it, such as in/deep/*.csv"),
        ("broken/*.csv", "broken/a.csv is a broken link, or not a regular file."),
    ],
)
def test_missing_files_are_named_with_the_place_where_they_were_looked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    write(folder, "in/a.csv", "in/deep/a.csv", "broken/b.csv")
    (folder / "broken" / "a.csv").symlink_to("nowhere")
    recorded: list[tuple[str, int]] = []
    monkeypatch.setattr("tasks.sources.paths.record_failure", lambda *failure: recorded.append(failure))
    assert not ExternalFile(path=path, setting="[messages] path").complete()
    ((message, code),) = recorded
    assert message.startswith(f"missing data: [messages] path = {path}: {reason.format(folder=folder)}")
    assert code == 20


def test_a_failure_is_taken_back_when_the_files_arrive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retracted: list[str] = []
    monkeypatch.setattr("tasks.sources.paths.retract_failure", retracted.append)
    task = ExternalFile(path="in/*.csv", setting="[messages] path")
    assert not task.complete()
    write(folder, "in/a.csv", "in/b.csv")
    assert task.complete()
    assert retracted == [task._missing_message]
    assert failures._message_file is None
