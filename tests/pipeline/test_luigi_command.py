"""The `luigi` command: its help, its exit codes, and the one-line message at the end of a failed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import DATE, STAGES, Settings, luigi_cold, write_settings


def test_extract_messages_runs_on_its_own(tmp_path: Path) -> None:
    done = luigi_cold(tmp_path, "ExtractMessages", "--date", DATE)
    assert (done.code, done.ran) == (0, {"ExtractMessages"})


@pytest.mark.parametrize("stage", STAGES)
def test_help_describes_every_parameter(tmp_path: Path, stage: str) -> None:
    done = luigi_cold(tmp_path, stage, "--help")
    assert done.code == 0
    options = done.output.split("\noptions:\n")[1]
    blocks = [block for block in ("\n" + options).split("\n  --") if block.strip()]
    assert len(blocks) > 50
    for block in blocks:
        assert len(block.split(None, 2)) == 3, f"--{block.split()[0]} has no description"


# Name, settings, arguments, environment, exit code, and text of the last line.
FAILURES: list[tuple[str, Settings, tuple[str, ...], dict[str, str], int, str]] = [
    ("unknown section", {"trainng": {"epochs": "1"}}, ("ScoreBatch",), {}, 40, "[trainng]: no such section"),
    ("unknown key", {"training": {"epoch": "1"}}, ("ScoreBatch",), {}, 40, "[training] epoch: no such setting"),
    ("unknown key of Luigi's", {"core": {"log_levl": "INFO"}}, ("ScoreBatch",), {}, 40, "[core] log_levl"),
    ("value out of range", {"training": {"epochs": "0"}}, ("ScoreBatch",), {}, 40, "[training] epochs = 0: expected"),
    ("value of the wrong type", {"network": {"rnn_units": "many"}}, ("ScoreBatch",), {}, 40, "rnn_units = 'many'"),
    ("missing required value", {"corpus": {"source": "file"}}, ("ScoreBatch",), {}, 40, "[corpus] path is empty"),
    ("name outside its folder", {"artifacts": {"model_name": "../x"}}, ("TrainModel",), {}, 40, "= ../x: expected"),
    ("bad value on the command line", {}, ("ScoreBatch", "--scoring-threshold", "2"), {}, 40, "threshold = 2"),
    ("bad date", {}, ("ScoreBatch", "--date", "31-01-2026"), {}, 40, "expected a date such as 2026-01-31"),
    ("bad version", {}, ("ScoreBatch", "--model-version", "new"), {}, 40, "--model-version new: expected"),
    ("missing settings file", {}, ("ScoreBatch",), {"LUIGI_CONFIG_PATH": "none.cfg"}, 40, "none.cfg: no such file"),
    ("unknown option", {}, ("ScoreBatch", "--colour", "red"), {}, 2, "unrecognized arguments: --colour red"),
    ("unknown task", {}, ("ScoreBacth",), {}, 1, "ScoreBatch"),
    (
        "missing messages", {"messages": {"source": "file", "path": "in-{date}.csv"}},
        ("ExtractMessages", "--date", DATE), {}, 20, f"[messages] path = in-{DATE}.csv: no such file",
    ),
    (
        "missing corpus", {"corpus": {"source": "file", "path": "labelled.tsv"}},
        ("TrainModel",), {}, 20, "[corpus] path = labelled.tsv: no such file",
    ),
    ("unavailable device", {"devices": {"devices": "gpu:3"}}, ("CleanText",), {}, 30, "Available: cpu:0"),
    ("unknown version", {}, ("ScoreBatch", "--model-version", "9"), {}, 30, "model version 9"),
    (
        "unreachable database", {}, ("ScoreBatch",),
        {"SPAMSCORE_DATABASE_URL": "postgresql://nobody:hunter2@127.0.0.1:1/none"}, 35, "cannot be reached",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("_name", "settings", "arguments", "variables", "code", "message"), FAILURES, ids=[row[0] for row in FAILURES]
)
def test_a_failed_run_exits_with_its_code_and_ends_with_a_one_line_message(
    tmp_path: Path,
    _name: str,
    settings: Settings,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    code: int,
    message: str,
) -> None:
    write_settings(tmp_path, settings)
    done = luigi_cold(tmp_path, *arguments, **variables)
    assert done.code == code, done.output
    assert message in done.last_line
    assert "Traceback" not in done.output
    assert "hunter2" not in done.output


@pytest.mark.parametrize("settings", [{"trainng": {"epochs": "1"}}, {"training": {"epochs": "0"}}])
def test_a_bad_setting_stops_the_run_before_any_work(tmp_path: Path, settings: Settings) -> None:
    write_settings(tmp_path, settings)
    luigi_cold(tmp_path, "ScoreBatch")
    assert [path.name for path in tmp_path.iterdir()] == ["luigi.cfg"]


def test_an_unexpected_error_ends_with_a_one_line_message(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be", encoding="utf-8")
    done = luigi_cold(tmp_path, "IngestCorpus")
    assert done.code in (30, 35)
    assert done.last_line.startswith("spamscore: IngestCorpus()")
