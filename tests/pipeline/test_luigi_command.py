"""The main job through its front door: the real `luigi` command, in folders of its own."""

from __future__ import annotations

import csv
import datetime
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

LUIGI = Path(sys.executable).with_name("luigi")
STAGES = (
    "IngestCorpus", "CleanText", "BuildVocabulary", "TrainModel", "EvaluateModel", "ExportModel", "ExtractMessages",
    "ScoreBatch",
)  # fmt: skip
# Small enough to train in seconds; everything else as shipped.
SMALL = {
    "network": {"embedding_size": "8", "rnn_units": "8", "bidirectional": "false"},
    "training": {"epochs": "4", "learning_rate": "0.02"},
}
DATE = "2026-01-31"

Settings = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and all that it printed."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        return self.output.rstrip().splitlines()[-1]

    @property
    def ran(self) -> set[str]:
        """Stages that ran to their end in this run."""
        return {stage for stage in STAGES if f"done      {stage}(" in self.output}


def write_settings(folder: Path, settings: Settings) -> None:
    lines = [line for section, keys in settings.items() for line in
             (f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()))]  # fmt: skip
    (folder / "luigi.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")


def environment(**extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LUIGI", "SPAMSCORE_"))}
    return {**kept, **extra}


def luigi(folder: Path, *arguments: str, **variables: str) -> Done:
    done = subprocess.run(
        [LUIGI, "--module", "pipeline", *arguments],
        cwd=folder, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout)


def merged(*settings: Settings) -> Settings:
    sections = {section for one in settings for section in one}
    return {section: {k: v for one in settings for k, v in one.get(section, {}).items()} for section in sections}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A folder in which the whole chain ran once, and what it said."""
    folder = tmp_path_factory.mktemp("finished")
    write_settings(folder, SMALL)
    done = luigi(folder, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    return folder, done


@pytest.fixture
def copied(finished: tuple[Path, Done], tmp_path: Path) -> Path:
    """A copy of that folder, to change things in."""
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


def query(folder: Path, statement: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "spamscore.db") as connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def test_the_chain_ends_with_a_published_batch_in_which_every_message_is_scored_or_rejected(
    finished: tuple[Path, Done],
) -> None:
    folder, done = finished
    assert done.ran == set(STAGES)
    ((state, read, scored, rejected, flagged, version, checksum),) = query(
        folder, "select state, messages_read, scored, rejected, flagged, model_version, checksum from score_batches"
    )
    assert (state, version) == ("published", 1)
    assert read == scored + rejected
    assert len(str(checksum)) == 16
    rows = query(folder, "select message_id, spam_probability, flagged from published_scores")
    assert len(rows) == scored
    assert sum(bool(row[2]) for row in rows) == flagged
    assert all(bool(flag) == (float(str(probability)) >= 0.5) for _, probability, flag in rows)
    reasons = dict(query(folder, "select reason, count(*) from rejected_messages group by reason"))
    assert reasons == {"empty text": 2, "missing message_id": 1, "repeated message_id": 1}


def test_every_row_of_the_bundled_inbox_is_in_one_of_the_two_tables(finished: tuple[Path, Done]) -> None:
    folder, _ = finished
    inbox = Path(__file__).resolve().parents[2] / "pipeline" / "sample" / "inbox.csv"
    with inbox.open(newline="", encoding="utf-8") as file:
        ids = [row["message_id"] for row in csv.DictReader(file)]
    scored = {row[0] for row in query(folder, "select message_id from spam_scores")}
    assert scored | {""} == set(ids)
    assert query(folder, "select count(*) from spam_scores")[0][0] + query(
        folder, "select count(*) from rejected_messages"
    )[0][0] == len(ids)


def test_the_run_leaves_nothing_but_artifacts_the_database_and_no_half_made_folder(finished: tuple[Path, Done]) -> None:
    folder, _ = finished
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in folder.iterdir()} == {
        "luigi.cfg", "artifacts", "spamscore.db",
    }  # fmt: skip
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*tmp*"))


def test_every_folder_of_a_stage_has_a_manifest_that_names_what_it_is_made_of(finished: tuple[Path, Done]) -> None:
    folder, _ = finished
    for stage in ("corpus", "messages", "vocabulary", "training", "evaluation"):
        (made,) = (folder / "artifacts" / stage).iterdir()
        manifest = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["fingerprint"] == made.name
        assert manifest["made_of"]["stage"] in STAGES


def test_a_second_run_finds_it_done_and_runs_nothing(finished: tuple[Path, Done]) -> None:
    again = luigi(finished[0], "ScoreBatch", "--date", DATE)
    assert (again.code, again.ran) == (0, set())


def test_without_a_date_it_is_yesterday_s_batch(copied: Path) -> None:
    before = datetime.date.today()
    done = luigi(copied, "ScoreBatch")
    assert done.ran == {"ExtractMessages", "ScoreBatch"}
    ((date,),) = query(copied, f"select batch_date from score_batches where batch_date <> '{DATE}'")
    yesterdays = {(day - datetime.timedelta(days=1)).isoformat() for day in (before, datetime.date.today())}
    assert date in yesterdays


def test_four_workers_end_as_surely_as_one_and_leave_the_same_scores(
    finished: tuple[Path, Done], tmp_path: Path
) -> None:
    write_settings(tmp_path, SMALL)
    done = luigi(tmp_path, "ScoreBatch", "--date", DATE, "--workers", "4")
    assert (done.code, done.ran) == (0, set(STAGES))
    scores = "select message_id, spam_probability, flagged from published_scores order by message_id"
    assert query(tmp_path, scores) == query(finished[0], scores)


def test_workers_score_several_dates_at_once(copied: Path) -> None:
    code = (
        "import datetime, luigi, pipeline\n"
        "dates = [datetime.date(2026, 2, day) for day in (1, 2, 3)]\n"
        "result = luigi.build([pipeline.ScoreBatch(date=date) for date in dates], workers=3, detailed_summary=True,"
        " local_scheduler=True)\n"
        "print(result.status.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=copied, env=environment(), capture_output=True, text=True)
    assert done.stdout.split() == ["SUCCESS"], done.stderr
    assert query(copied, "select count(*) from score_batches where state = 'published'") == [(4,)]


# Which stages another value makes run again. Stages not named find their result done.
AFTER_TRAINING = {"TrainModel", "EvaluateModel", "ExportModel", "ScoreBatch"}
AFTER_CLEANING = {"CleanText", "BuildVocabulary"} | AFTER_TRAINING
REAL_RERUNS = [
    ("nothing", {}, set()),
    ("a log level", {"console": {"log_level": "DEBUG"}}, set()),
    ("rnn_units", {"network": {"rnn_units": "9"}}, AFTER_TRAINING),
    ("threshold", {"scoring": {"threshold": "0.6"}}, {"ScoreBatch"}),
]


@pytest.mark.parametrize(("_what", "settings", "expected"), REAL_RERUNS, ids=[row[0] for row in REAL_RERUNS])
def test_another_value_runs_the_stages_that_depend_on_it_and_no_other(
    copied: Path, _what: str, settings: Settings, expected: set[str]
) -> None:
    write_settings(copied, merged(SMALL, settings))
    done = luigi(copied, "ScoreBatch", "--date", DATE)
    assert (done.code, done.ran) == (0, expected), done.output


def test_a_new_threshold_supersedes_the_batch_and_keeps_the_probabilities(copied: Path) -> None:
    write_settings(copied, merged(SMALL, {"scoring": {"threshold": "0.9"}}))
    luigi(copied, "ScoreBatch", "--date", DATE)
    assert query(copied, "select state, threshold from score_batches order by batch_id") == [
        ("superseded", 0.5), ("published", 0.9),
    ]  # fmt: skip
    first, second = (
        query(copied, f"select message_id, spam_probability from spam_scores where batch_id = {n} order by message_id")
        for n in (1, 2)
    )
    assert first == second


def test_a_model_version_can_be_asked_for_by_number(copied: Path) -> None:
    write_settings(copied, merged(SMALL, {"network": {"rnn_units": "9"}}))
    assert luigi(copied, "ScoreBatch", "--date", DATE).code == 0
    assert query(copied, "select model_version from score_batches where state = 'published'") == [(2,)]
    done = luigi(copied, "ScoreBatch", "--date", DATE, "--model-version", "1")
    assert done.ran == {"ScoreBatch"}
    assert query(copied, "select model_version from score_batches where state = 'published'") == [(1,)]


@pytest.mark.parametrize("stage", STAGES[:-2])
def test_each_stage_runs_on_its_own(finished: tuple[Path, Done], stage: str) -> None:
    assert luigi(finished[0], stage).code == 0


def test_extract_messages_runs_on_its_own(tmp_path: Path) -> None:
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert (done.code, done.ran) == (0, {"ExtractMessages"})


@pytest.mark.parametrize("stage", STAGES)
def test_help_describes_every_parameter(tmp_path: Path, stage: str) -> None:
    done = luigi(tmp_path, stage, "--help")
    assert done.code == 0
    options = done.output.split("\noptions:\n")[1]
    blocks = [block for block in ("\n" + options).split("\n  --") if block.strip()]
    assert len(blocks) > 50
    for block in blocks:
        assert len(block.split(None, 2)) == 3, f"--{block.split()[0]} has no description"


# Exit codes of the real command, each with what its last line must name.
FAILURES: list[tuple[str, Settings, tuple[str, ...], dict[str, str], int, str]] = [
    ("unknown section", {"trainng": {"epochs": "1"}}, ("ScoreBatch",), {}, 40, "[trainng]: no such section"),
    ("unknown key", {"training": {"epoch": "1"}}, ("ScoreBatch",), {}, 40, "[training] epoch: no such setting"),
    ("unknown key of Luigi's", {"core": {"log_levl": "INFO"}}, ("ScoreBatch",), {}, 40, "[core] log_levl"),
    ("value out of range", {"training": {"epochs": "0"}}, ("ScoreBatch",), {}, 40, "[training] epochs = 0: expected"),
    ("value of another type", {"network": {"rnn_units": "many"}}, ("ScoreBatch",), {}, 40, "rnn_units = 'many'"),
    ("value without its partner", {"corpus": {"source": "file"}}, ("ScoreBatch",), {}, 40, "[corpus] path is empty"),
    ("bad value on the command line", {}, ("ScoreBatch", "--scoring-threshold", "2"), {}, 40, "threshold = 2.0: expected"),
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
    ("device that is not there", {"devices": {"devices": "gpu:3"}}, ("CleanText",), {}, 30, "there are cpu:0"),
    ("version that is not there", {}, ("ScoreBatch", "--model-version", "9"), {}, 30, "model version 9"),
    (
        "unreachable database", {}, ("ScoreBatch",),
        {"SPAMSCORE_DATABASE_URL": "postgresql://nobody:hunter2@127.0.0.1:1/none"}, 35, "cannot be reached",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("_what", "settings", "arguments", "variables", "code", "named"), FAILURES, ids=[row[0] for row in FAILURES]
)
def test_a_failure_has_its_exit_code_and_one_readable_message_last(
    tmp_path: Path,
    _what: str,
    settings: Settings,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    code: int,
    named: str,
) -> None:
    write_settings(tmp_path, settings)
    done = luigi(tmp_path, *arguments, **variables)
    assert done.code == code, done.output
    assert named in done.last_line
    assert "Traceback" not in done.output
    assert "hunter2" not in done.output


@pytest.mark.parametrize("settings", [{"trainng": {"epochs": "1"}}, {"training": {"epochs": "0"}}])
def test_a_bad_setting_stops_the_run_before_any_work(tmp_path: Path, settings: Settings) -> None:
    write_settings(tmp_path, settings)
    luigi(tmp_path, "ScoreBatch")
    assert [path.name for path in tmp_path.iterdir()] == ["luigi.cfg"]


def test_an_unexpected_error_keeps_its_traceback_and_still_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be", encoding="utf-8")
    done = luigi(tmp_path, "IngestCorpus")
    assert done.code in (30, 35)
    assert done.last_line.startswith("spamscore: IngestCorpus()")


def test_tensorflow_is_quiet_unless_asked(finished: tuple[Path, Done], copied: Path) -> None:
    chatter = ("oneDNN", "cuInit", "cudart", "WARNING:tensorflow", "absl")
    assert not [word for word in chatter if word in finished[1].output]
    write_settings(copied, merged(SMALL, {"console": {"tensorflow_log": "INFO"}}))
    assert "oneDNN" in luigi(copied, "ScoreBatch", "--date", "2026-02-01").output


def test_the_log_level_is_a_setting(copied: Path) -> None:
    write_settings(copied, merged(SMALL, {"console": {"log_level": "ERROR"}, "core": {"log_level": "ERROR"}}))
    done = luigi(copied, "ScoreBatch", "--date", "2026-02-01")
    assert (done.code, done.output.strip()) == (0, "")


def kill_when(folder: Path, arguments: tuple[str, ...], ready: Callable[[], bool]) -> None:
    """Starts the command in a process group of its own and kills the group once something is so."""
    process = subprocess.Popen(
        [LUIGI, "--module", "pipeline", *arguments], cwd=folder, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        while process.poll() is None and not ready():
            time.sleep(0.01)
        assert process.poll() is None, "the command ended before it could be killed"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_training_killed_and_started_again_ends_with_the_weights_of_one_that_was_not(
    finished: tuple[Path, Done], copied: Path
) -> None:
    settings = merged(SMALL, {"training": {"checkpoint_steps": "3"}})
    write_settings(copied, settings)
    shutil.rmtree(copied / "artifacts" / "training")
    training = copied / "artifacts" / "training"
    for step in (6, 21, 36):
        kill_when(
            copied, ("TrainModel",), lambda step=step: bool(list(training.glob(f"*.partial/*/ckpt-{step}.index")))
        )
        assert not [path for path in training.iterdir() if not path.name.endswith(".partial")]
    done = luigi(copied, "TrainModel")
    assert "training goes on from" in done.output
    (killed,), (whole,) = training.iterdir(), (finished[0] / "artifacts" / "training").iterdir()
    assert killed.name == whole.name
    descriptions = [json.loads((one / "model.json").read_text(encoding="utf-8")) for one in (killed, whole)]
    assert descriptions[0]["weights_sha256"] == descriptions[1]["weights_sha256"]


def test_a_batch_killed_between_chunks_goes_on_and_ends_with_the_undisturbed_rows(
    finished: tuple[Path, Done], copied: Path
) -> None:
    write_settings(copied, merged(SMALL, {"scoring": {"chunk_size": "20"}}))
    (copied / "spamscore.db").unlink()

    def some_chunks_there() -> bool:
        try:
            return bool(query(copied, "select count(*) from batch_chunks")[0][0])
        except sqlite3.OperationalError:
            return False

    kill_when(copied, ("ScoreBatch", "--date", DATE), some_chunks_there)
    assert query(copied, "select count(*) from published_scores") == [(0,)]
    done = luigi(copied, "ScoreBatch", "--date", DATE)
    assert (done.code, "goes on" in done.output) == (0, True), done.output
    scores = "select message_id, spam_probability, flagged from published_scores order by message_id"
    killed, whole = query(copied, scores), query(finished[0], scores)
    assert [row[0] for row in killed] == [row[0] for row in whole]
    assert np.allclose([float(str(row[1])) for row in killed], [float(str(row[1])) for row in whole], rtol=0, atol=1e-5)
    assert query(copied, "select count(*) from score_batches") == [(1,)]


def test_a_model_that_is_refused_is_said_and_the_night_goes_on_with_the_version_in_service(copied: Path) -> None:
    write_settings(copied, merged(SMALL, {"training": {"epochs": "1", "learning_rate": "0.0000001"}}))
    done = luigi(copied, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    assert "kept out of service" in done.output
    assert query(copied, "select model_version from score_batches where state = 'published'") == [(1,)]
    assert [path.name for path in (copied / "artifacts" / "exports" / "spam_ham").iterdir()] == ["1"]


def test_a_first_model_that_is_refused_ends_the_run_with_the_reasons(tmp_path: Path) -> None:
    write_settings(tmp_path, merged(SMALL, {"training": {"epochs": "1", "learning_rate": "0.0000001"}}))
    done = luigi(tmp_path, "ScoreBatch", "--date", DATE)
    assert done.code == 30
    assert "no version is in service" in done.last_line
    assert not (tmp_path / "spamscore.db").exists() or query(tmp_path, "select count(*) from published_scores") == [
        (0,)
    ]


def test_two_devices_give_the_scores_of_one(finished: tuple[Path, Done], copied: Path) -> None:
    write_settings(copied, merged(SMALL, {"devices": {"logical_cpus": "2", "devices": "cpu:0,cpu:1"}}))
    assert luigi(copied, "ScoreBatch", "--date", "2026-02-01").code == 0
    (row,) = query(copied, "select devices from score_batches where batch_date = '2026-02-01'")
    assert row == ("cpu:0,cpu:1",)
    first, second = (
        dict(query(copied, f"select message_id, spam_probability from published_scores where batch_date = '{date}'"))
        for date in (DATE, "2026-02-01")
    )
    assert first.keys() == second.keys()
    assert max(abs(first[key] - second[key]) for key in first) <= 1e-5


def test_the_same_chain_writes_to_every_database(finished: tuple[Path, Done], copied: Path, database_url: str) -> None:
    done = luigi(copied, "ScoreBatch", "--date", "2026-02-01", SPAMSCORE_DATABASE_URL=database_url)
    assert done.code == 0, done.output
    import sqlalchemy as sa

    engine = sa.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select message_id, spam_probability, flagged from published_scores")).all()
    engine.dispose()
    expected = query(finished[0], "select message_id, spam_probability, flagged from published_scores")
    assert sorted((i, p, bool(f)) for i, p, f in rows) == sorted((i, p, bool(f)) for i, p, f in expected)  # type: ignore[misc]
