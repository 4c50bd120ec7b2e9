"""The `luigi` command: its help, its exit codes, and the one-line message at the end of a failed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import DATE, STAGES, Settings, environment, luigi, luigi_cold, write_settings
from spamscore_command import run_process


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
        ("missing settings file", {}, ("ScoreBatch",), {"LUIGI_CONFIG_PATH": "none.cfg"}, 40, "none.cfg: no such file"),
    ("TOML", {}, ("ScoreBatch",), {"LUIGI_CONFIG_PARSER": "toml"}, 40, "LUIGI_CONFIG_PARSER = toml: expected"),
    ("a file of TOML", {}, ("ScoreBatch",), {"LUIGI_CONFIG_PATH": "night.toml"}, 40, "received TOML"),
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


# Arguments, and text of the line.
BAD_ARGUMENTS = [
    (("ScoreBach",), "no task ScoreBach (did you mean ScoreBatch?). Tasks are BuildVocabulary, CleanText, "),
    (("nightly",), "no task nightly (did you mean Nightly?)"),
    (("Xyz",), "no task Xyz. Tasks are "),
    ((), "no task is given. Tasks are "),
    (("RangeDaily", "--of", "ScoreBach"), "--of: no task ScoreBach (did you mean ScoreBatch?)"),
    (("RangeDaily",), "RangeDaily: --of is missing"),
    (
        ("RangeDaily", "--of", "ScoreBatch", "--start", "2026-13-01"),
        "--start 2026-13-01: expected a date such as",
    ),
    (("RangeDaily", "--of", "ScoreBatch", "--days-back", "many"), "--days-back many: expected an integer"),
    (("RangeDaily", "--of", "ScoreBatch", "--of-params", "{x"), "--of-params {x: expected a JSON object"),
    (("RangeMonthly", "--of", "ScoreBatch", "--start", "2026-13"), "--start 2026-13: expected a month such as 2026-01"),
    (("RangeHourly", "--of", "Nightly", "--start", "2026-01-31"), "--start 2026-01-31: expected an hour such as"),
    (("ScoreBatch", "--date", "31.01.2026"), "--date 31.01.2026: expected a date such as 2026-01-31"),
    (("ScoreBatch", "--date", "2026-02-30"), "--date 2026-02-30: expected a date such as 2026-01-31"),
    (("Nightly", "--date", "yesterday"), "--date yesterday: expected a date such as 2026-01-31"),
    (("ScoreBatch", "--date", ""), "--date: the value is empty"),
    (("ScoreBatch", "--date="), "--date: the value is empty"),
    (("ScoreBatch", "--ScoreBatch-date", "2026-02-30"), "--date 2026-02-30: expected a date such as 2026-01-31"),
    (("ScoreBatch", "--date"), "argument --date: expected one argument"),
    (("ScoreBatch", "--dats", DATE), "unrecognized arguments: --dats 2026-01-31 (did you mean --date?)"),
    (("ScoreBatch", "--dat", DATE), "ambiguous option: --dat could match "),
    (("ScoreBatch", "--dat", DATE), "(did you mean --date?)"),
    (("ScoreBatch", "--colour", "red"), "unrecognized arguments: --colour red"),
    (("ScoreBatch", DATE), "unrecognized arguments: 2026-01-31"),
    (("ScoreBatch", "--model-version", "new"), "--model-version new: expected"),
    (("ScoreBatch", "--scoring-threshold", "2"), "[scoring] threshold = 2.0: expected"),
    (("ScoreBatch", "--workers", "two"), "--workers two: expected an integer"),
    (("ScoreBatch", "--log-level", "LOUD"), "--log-level LOUD: "),
]


@pytest.mark.parametrize(("arguments", "text"), BAD_ARGUMENTS, ids=[" ".join(row[0]) for row in BAD_ARGUMENTS])
def test_arguments_that_cannot_be_used_are_one_line_with_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    done = luigi(tmp_path, *arguments)
    assert (done.code, len(done.output.splitlines())) == (2, 1), done.output
    assert done.output.startswith("spamscore: ")
    assert text in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["a folder", "a link to nowhere"])
def test_a_settings_file_that_luigi_would_skip_stops_the_run(tmp_path: Path, file: str) -> None:
    path = tmp_path / "luigi.cfg"
    path.mkdir() if file == "a folder" else path.symlink_to("nowhere")
    done = luigi(tmp_path, "IngestCorpus")
    assert (done.code, done.ran) == (40, set()), done.output
    assert "luigi.cfg: " in done.last_line


def test_sections_of_other_projects_in_a_machine_wide_file_stop_no_run_and_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "machine.cfg").write_text("[OtherTeamsTask]\nbucket = hunter2\n[s3]\nkey = hunter2\n", encoding="utf-8")
    done = luigi(tmp_path, "IngestCorpus", LUIGI_CONFIG_PATH="machine.cfg")
    assert (done.code, done.ran) == (0, {"IngestCorpus"}), done.output
    listed = run_process("config", cwd=tmp_path, env=environment(LUIGI_CONFIG_PATH="machine.cfg"))
    assert (listed.returncode, "hunter2" in listed.stdout) == (0, False), listed.stderr
    assert "scoring\tthreshold\tauto\tdefault" in listed.stdout


@pytest.mark.parametrize(
    ("content", "variables", "message"),
    [
        (b"\xef\xbb\xbf[run]\n", {}, "luigi.cfg, line 1: a UTF-8 byte order mark"),
        (b"[run]\n# caf\xe9\n", {}, "luigi.cfg, line 2: expected UTF-8"),
        (b"[run]\n[run]\n", {}, "luigi.cfg, line 2: the section [run] is there twice"),
        (b"[run]\n", {"LUIGI_CONFIG_PARSER": "toml"}, "LUIGI_CONFIG_PARSER = toml: expected"),
        (b"[run]\n", {"LUIGI_CONFIG_PATH": "none.cfg"}, "LUIGI_CONFIG_PATH = none.cfg: no such file"),
    ],
    ids=["mark", "latin-1", "twice", "toml", "no file"],
)
def test_spamscore_says_in_one_line_what_is_wrong_with_a_settings_file(
    tmp_path: Path, content: bytes, variables: dict[str, str], message: str
) -> None:
    (tmp_path / "luigi.cfg").write_bytes(content)
    done = run_process("config", cwd=tmp_path, env=environment(**variables))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"spamscore: {message}")
