"""The whole chain as a command: its results, what makes a stage run again, and how it resumes after a kill."""

from __future__ import annotations

import csv
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from chain import (
    DATE,
    SMALL,
    STAGES,
    CommandResult,
    Settings,
    count_committed_chunks,
    environment,
    kill_group_on_exit,
    kill_when,
    luigi,
    luigi_cold,
    merge_settings,
    query,
    start_command,
    terminate_when,
    wait_until,
    write_settings,
)

from models.settings import declared_settings
from tasks.artifacts.folders import read_manifest, write_manifest
from tasks.settings.sections import SECTIONS


@pytest.fixture
def copied(finished: tuple[Path, CommandResult], tmp_path: Path) -> Path:
    """A copy of the finished folder, for a test to change."""
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


@pytest.fixture(scope="module")
def _trained_again(finished: tuple[Path, CommandResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(finished[0], tmp_path_factory.mktemp("again"), dirs_exist_ok=True))
    write_settings(folder, merge_settings(SMALL, {"training": PATIENT}))
    done = luigi(folder, "TrainModel")
    assert (done.code, done.ran) == (0, {"TrainModel"}), done.output
    return folder


@pytest.fixture
def trained_again(_trained_again: Path, tmp_path: Path) -> Path:
    """A copy of the finished folder with a second model that is trained but not evaluated yet."""
    return Path(shutil.copytree(_trained_again, tmp_path / "again"))


# A patience above the number of epochs changes no weight, so the new model equals the one in service.
PATIENT = {"patience": "9"}


def test_the_chain_ends_with_a_published_batch_in_which_every_message_is_scored_or_rejected(
    finished: tuple[Path, CommandResult],
) -> None:
    folder, done = finished
    assert done.ran == set(STAGES)
    columns = "state, messages_read, scored, rejected, flagged, model_version, checksum, threshold"
    ((state, read, scored, rejected, flagged, version, checksum, threshold),) = query(
        folder, f"select {columns} from score_batches"
    )
    assert (state, version) == ("published", 1)
    assert read == scored + rejected
    assert len(str(checksum)) == 16
    rows = query(folder, "select message_id, spam_probability, flagged from published_scores")
    assert len(rows) == scored
    assert sum(bool(row[2]) for row in rows) == flagged
    assert all(bool(flag) == (float(str(probability)) >= float(str(threshold))) for _, probability, flag in rows)
    reasons = dict(query(folder, "select reason, count(*) from rejected_messages group by reason"))
    assert reasons == {"empty text": 2, "missing message_id": 1, "repeated message_id": 1}


def test_every_row_of_the_bundled_inbox_is_in_one_of_the_two_tables(finished: tuple[Path, CommandResult]) -> None:
    folder, _ = finished
    inbox = Path(__file__).resolve().parents[2] / "pipeline" / "sample" / "inbox.csv"
    with inbox.open(newline="", encoding="utf-8") as file:
        ids = [row["message_id"] for row in csv.DictReader(file)]
    both = "select message_id from spam_scores union select coalesce(message_id, '') from rejected_messages"
    assert {row[0] for row in query(folder, both)} == set(ids)
    assert query(folder, "select count(*) from spam_scores")[0][0] + query(
        folder, "select count(*) from rejected_messages"
    )[0][0] == len(ids)


def test_a_run_leaves_only_artifacts_and_the_database_and_no_partial_folder(
    finished: tuple[Path, CommandResult],
) -> None:
    folder, _ = finished
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in folder.iterdir()} == {
        "luigi.cfg", "artifacts", "spamscore.db", "spamscore.db.lock",
    }  # fmt: skip
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*tmp*"))


def test_every_artifact_has_a_manifest_with_its_inputs(finished: tuple[Path, CommandResult]) -> None:
    folder, _ = finished
    for stage in ("corpus", "messages", "vocabulary", "training", "evaluation"):
        (artifact,) = (folder / "artifacts" / stage).iterdir()
        manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["fingerprint"] == artifact.name
        assert manifest["made_of"]["stage"] in STAGES


def test_a_second_run_runs_nothing(finished: tuple[Path, CommandResult]) -> None:
    again = luigi(finished[0], "ScoreBatch", "--date", DATE)
    assert (again.code, again.ran) == (0, set())


def test_the_date_defaults_to_yesterday(copied: Path) -> None:
    before = datetime.date.today()
    done = luigi(copied, "ScoreBatch")
    assert done.ran == {"ExtractMessages", "ScoreBatch"}
    ((date,),) = query(copied, f"select batch_date from score_batches where batch_date <> '{DATE}'")
    yesterdays = {(day - datetime.timedelta(days=1)).isoformat() for day in (before, datetime.date.today())}
    assert date in yesterdays


def test_four_workers_write_the_same_scores_as_one(finished: tuple[Path, CommandResult], tmp_path: Path) -> None:
    write_settings(tmp_path, SMALL)
    done = luigi(tmp_path, "ScoreBatch", "--date", DATE, "--workers", "4")
    assert (done.code, done.ran) == (0, set(STAGES))
    scores = "select message_id, spam_probability, flagged from published_scores order by message_id"
    assert query(tmp_path, scores) == query(finished[0], scores)


def test_a_second_run_of_a_date_waits_for_the_first_or_exits(copied: Path) -> None:
    arguments = ("ScoreBatch", "--date", DATE, "--scoring-chunk-size", "2", "--scoring-threshold", "0.4")
    first = start_command(copied, arguments, subprocess.DEVNULL)
    with kill_group_on_exit(first):
        chunks_before = count_committed_chunks(copied)
        wait_until(first, lambda: count_committed_chunks(copied) > chunks_before + 1)
        os.killpg(first.pid, signal.SIGSTOP)
        third = luigi(copied, *arguments, "--run-when-running", "leave")
        assert third.code == 10
        assert "another run is scoring the messages of 2026-01-31, and [run] when_running = leave" in third.last_line
        assert third.ran == set()
        second = start_command(copied, arguments, subprocess.PIPE)
        with kill_group_on_exit(second):
            output = read_until(second, "waiting for it to end")
            os.killpg(first.pid, signal.SIGCONT)
            assert first.wait() == 0
            output += second.communicate()[0]
        assert second.returncode == 0
    assert output.count("done      ScoreBatch(") == 1
    assert "batch 2" not in output
    states = query(copied, "select state, threshold from score_batches order by batch_id")
    assert states == [("superseded", read_first_threshold(copied)), ("published", 0.4)]


def read_first_threshold(folder: Path) -> object:
    """Returns the threshold that the first evaluation stored."""
    oldest = min((folder / "artifacts" / "evaluation").iterdir(), key=lambda path: path.stat().st_ctime_ns)
    metrics = json.loads((oldest / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["threshold_found"]["share"] == 0.002
    return metrics["threshold"]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if text in line:
            return lines
    pytest.fail(f"{text!r} is not in the output:\n{lines}")


@pytest.mark.slow
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


# The stages that run again when a setting has another value; the others are complete.
SCORING = {"ScoreBatch"}
EXPORTING = {"ExportModel"} | SCORING
TRAINING = {"TrainModel", "EvaluateModel"} | EXPORTING
COUNTING = {"BuildVocabulary"} | TRAINING
CLEANING = {"CleanText"} | COUNTING
INGESTING = {"IngestCorpus"} | CLEANING
EXTRACTING = {"ExtractMessages"} | SCORING
NOTHING: set[str] = set()
ANOTHER_VALUE = [
    ("artifacts", "folder", "elsewhere", set(STAGES) - SCORING),  # the batch is in the database
    ("artifacts", "shared", "file:///mnt/spamscore", NOTHING),
    ("artifacts", "model_name", "other", EXPORTING),
    ("artifacts", "keep_days", "5", NOTHING),
    ("database", "url", "sqlite:///other.db", SCORING),
    ("database", "connect_timeout", "5", NOTHING),
    ("database", "keep_days", "5", NOTHING),
    ("corpus", "source", "sms_spam_collection", INGESTING),
    ("corpus", "path", "other.csv", NOTHING),  # only the content of a file counts, and the bundled sample has no path
    ("corpus", "format", "csv", INGESTING),
    ("corpus", "encoding", "latin-1", INGESTING),
    ("corpus", "text_column", "body", INGESTING),
    ("corpus", "label_column", "kind", INGESTING),
    ("corpus", "spam_label", "junk", CLEANING),
    ("corpus", "ham_label", "fine", CLEANING),
    ("corpus", "max_replaced_share", "0.5", NOTHING),
    ("corpus", "delimiter", "semicolon", INGESTING),
    ("corpus", "quote", "none", INGESTING),
    ("corpus", "escape", "\\", INGESTING),
    ("corpus", "null", "NULL", INGESTING),
    ("corpus", "url", "sqlite:///other.db", NOTHING),
    ("corpus", "query", "SELECT 1", INGESTING),
    ("corpus", "edition", "2", INGESTING),
    ("corpus", "feedback", "join", INGESTING),
    ("corpus", "self_training", "nights", EXPORTING),
    ("corpus", "self_training_messages", "100", NOTHING),
    ("corpus", "self_training_days", "7", NOTHING),
    ("corpus", "self_training_weight", "0.5", NOTHING),
    ("corpus", "self_training_spam", "0.8", NOTHING),
    ("corpus", "self_training_ham", "0.1", NOTHING),
    ("corpus", "download_url", "http://127.0.0.1/other.zip", NOTHING),
    ("corpus", "download_timeout", "5", NOTHING),
    ("corpus", "max_refused_share", "0.5", NOTHING),
    ("text", "cleaning", "letters", CLEANING),
    ("text", "max_characters", "100", CLEANING),
    ("text", "max_tokens", "50", CLEANING),
    ("split", "validation_share", "0.2", CLEANING),
    ("split", "test_share", "0.2", CLEANING),
    ("split", "salt", "other", CLEANING),
    ("vocabulary", "min_count", "3", COUNTING),
    ("vocabulary", "max_size", "500", COUNTING),
    ("network", "cell", "lstm", TRAINING),
    ("network", "bidirectional", "true", TRAINING),
    ("network", "embedding_size", "9", TRAINING),
    ("network", "rnn_units", "9", TRAINING),
    ("network", "pooling", "last", TRAINING),
    ("network", "dropout", "0.1", TRAINING),
    ("network", "word_dropout", "0.3", TRAINING),
    ("network", "ngram_buckets", "2048", TRAINING),
    ("network", "ngram_vectors", "100", TRAINING),
    ("network", "linear", "false", TRAINING),
    ("training", "learning_rate", "0.01", TRAINING),
    ("training", "batch_size", "16", TRAINING),
    ("training", "epochs", "5", TRAINING),
    ("training", "patience", "2", TRAINING),
    ("training", "label_smoothing", "0.1", TRAINING),
    ("training", "augmentation", "0.5", TRAINING),
    ("training", "held_out_folds", "2", TRAINING),
    ("training", "seed", "8", TRAINING),
    ("training", "shards", "2", TRAINING),
    ("training", "processes", "2", NOTHING),
    ("training", "workers", "one:1,two:1", NOTHING),
    ("training", "worker", "17", NOTHING),
    ("training", "worker_timeout", "5", NOTHING),
    ("training", "start_from", "version:1", TRAINING),
    ("training", "start_variables", "embedding/*", TRAINING),
    ("training", "checkpoint_steps", "7", NOTHING),
    ("training", "keep_checkpoints", "3", NOTHING),
    ("training", "keep_checkpoint_every_hours", "2", NOTHING),
    ("gate", "pr_auc_allowance", "0.5", {"EvaluateModel"}),
    ("gate", "recall_allowance", "0.5", {"EvaluateModel"}),
    ("gate", "calibration_allowance", "0.5", {"EvaluateModel"}),
    ("gate", "confidence", "0.8", {"EvaluateModel"}),
    ("gate", "resamples", "200", {"EvaluateModel"}),
    ("gate", "flip_budget", "0.5", {"EvaluateModel"}),
    ("gate", "flip_examples", "3", {"EvaluateModel"}),
    ("messages", "source", "sql", EXTRACTING),
    ("messages", "path", "in.csv", EXTRACTING),
    ("messages", "format", "csv", EXTRACTING),
    ("messages", "encoding", "latin-1", EXTRACTING),
    ("messages", "id_column", "id", EXTRACTING),
    ("messages", "text_column", "body", EXTRACTING),
    ("messages", "delimiter", "semicolon", EXTRACTING),
    ("messages", "quote", "none", EXTRACTING),
    ("messages", "escape", "\\", EXTRACTING),
    ("messages", "null", "NULL", EXTRACTING),
    ("messages", "date_format", "epoch_seconds", EXTRACTING),
    ("messages", "timezone", "Asia/Tokyo", EXTRACTING),
    ("messages", "provisional", "true", NOTHING),
    ("messages", "max_rejected_share", "0.5", NOTHING),
    ("messages", "max_replaced_share", "0.5", NOTHING),
    ("messages", "date_column", "sent", EXTRACTING),
    ("messages", "url", "sqlite:///other.db", NOTHING),
    ("messages", "query", "SELECT 1", EXTRACTING),
    ("scoring", "engine", "spark", NOTHING),
    ("spark", "master", "spark://localhost:7077", NOTHING),
    ("spark", "executors", "3", NOTHING),
    ("spark", "cores", "3", NOTHING),
    ("spark", "memory", "4096", NOTHING),
    ("spark", "python", "/usr/bin/python3", NOTHING),
    ("spark", "archive", "environment.tar.gz", NOTHING),
    ("spark", "database_url", "executor", NOTHING),
    ("spark", "timeout", "60", NOTHING),
    ("spark", "log", "INFO", NOTHING),
    ("spark", "options", "spark.eventLog.enabled=true", NOTHING),
    ("scoring", "threshold", "0.6", {"EvaluateModel"} | SCORING),
    ("scoring", "ham_blocked_share", "0.05", {"EvaluateModel"} | SCORING),
    ("scoring", "chunk_size", "7", NOTHING),
    ("scoring", "batch_size", "7", NOTHING),
    ("scoring", "queue", "7", NOTHING),
    ("serving", "base_path", "/models/spam_ham", NOTHING),
    ("serving", "keep_loaded", "2", NOTHING),
    ("serving", "load_seconds", "5", NOTHING),
    ("serving", "server", "serving.internal:8500", NOTHING),
    ("serving", "rest_server", "https://serving.internal", NOTHING),
    ("serving", "timeout", "0.5", NOTHING),
    ("serving", "retries", "0", NOTHING),
    ("serving", "tls", "true", NOTHING),
    ("serving", "ca_file", "ca.pem", NOTHING),
    ("serving", "certificate_file", "client.pem", NOTHING),
    ("serving", "key_file", "client.key", NOTHING),
    ("serving", "token", "a-token", NOTHING),
    ("report", "messages", "hide", NOTHING),
    ("report", "listed", "7", NOTHING),
    ("report", "sample", "7", NOTHING),
    ("drift", "on_drift", "fail", NOTHING),
    ("drift", "batches", "7", NOTHING),
    ("drift", "least_batches", "8", NOTHING),
    ("drift", "flagged_share", "7", NOTHING),
    ("drift", "message_count", "7", NOTHING),
    ("drift", "unknown_words", "0.7", NOTHING),
    ("drift", "psi_before", "0.7", NOTHING),
    ("drift", "psi_validation", "0.7", NOTHING),
    ("devices", "devices", "cpu:0", NOTHING),
    ("devices", "memory_growth", "false", NOTHING),
    ("devices", "memory_limit", "100", NOTHING),
    ("devices", "memory_share", "0.5", NOTHING),
    ("devices", "soft_placement", "false", NOTHING),
    ("devices", "log_placement", "true", NOTHING),
    ("devices", "logical_cpus", "2", NOTHING),
    ("devices", "threads", "1", NOTHING),
    ("api", "host", "::1", NOTHING),
    ("api", "port", "8001", NOTHING),
    ("api", "grpc_port", "8500", NOTHING),
    ("api", "backend", "server", NOTHING),
    ("api", "batch_milliseconds", "0", NOTHING),
    ("api", "largest_batch", "128", NOTHING),
    ("api", "max_messages", "500", NOTHING),
    ("api", "max_body_bytes", "100000", NOTHING),
    ("api", "max_waiting", "500", NOTHING),
    ("api", "timeout", "5", NOTHING),
    ("api", "header_timeout", "5", NOTHING),
    ("api", "idle_timeout", "5", NOTHING),
    ("api", "drain_seconds", "5", NOTHING),
    ("api", "versions_loaded", "8", NOTHING),
    ("api", "token", "a-token", NOTHING),
    ("api", "tls_certificate", "certificate.pem", NOTHING),
    ("api", "tls_key", "key.pem", NOTHING),
    ("api", "tls_client_ca", "authority.pem", NOTHING),
    ("api", "allow_anyone", "true", NOTHING),
    ("api", "labelling", "false", NOTHING),
    ("api", "session_hours", "1", NOTHING),
    ("api", "hosts", "spam.internal", NOTHING),
    ("console", "log_level", "DEBUG", NOTHING),
    ("console", "tensorflow_log", "ERROR", NOTHING),
    ("console", "progress", "never", NOTHING),
    ("run", "when_running", "leave", NOTHING),
    ("run", "catch_up_days", "5", NOTHING),
    ("run", "artifacts_url", "https://reports.internal/spam", NOTHING),
    ("run", "tensorboard_url", "http://127.0.0.1:6006", NOTHING),
    ("run", "deadline", "06:00", NOTHING),
    ("alerts", "mail_to", "a@example.org", NOTHING),
    ("alerts", "webhook_url", "http://127.0.0.1/other", NOTHING),
    ("alerts", "timeout", "5", NOTHING),
    ("alerts", "attempts", "5", NOTHING),
    ("metrics", "textfile_folder", "metrics", NOTHING),
    ("metrics", "pushgateway", "http://127.0.0.1:9091", NOTHING),
    ("core", "log_level", "DEBUG", NOTHING),
]  # fmt: skip
LIST_INCOMPLETE_STAGES = """
import datetime, json, sys
from luigi.configuration import get_config
import pipeline
parser, results = get_config(), []
for section, key, value, required in json.load(sys.stdin):
    previous = {(s, k): parser.get(s, k, None) for s, k in [(section, key), *((s, k) for s, k, _ in required)]}
    for s, k, v in [(section, key, value), *required]:
        parser.set(s, k, v)
    date = datetime.date.fromisoformat(sys.argv[1])
    stages = {n: getattr(pipeline, n) for n in pipeline.__all__ if n not in ("Nightly", "ReportBatch")
              and "Night" not in n and "SelfTrained" not in n}
    tasks = {n: c(date=date) if n in ("ExtractMessages", "ScoreBatch") else c() for n, c in stages.items()}
    results.append(sorted(name for name, task in tasks.items() if not task.complete()))
    for (s, k), v in previous.items():
        parser.remove_option(s, k) if v is None else parser.set(s, k, v)
print(json.dumps(results))
"""
# Other settings that a value requires.
REQUIRED_SETTINGS = {
    "sql": [["messages", "query", "SELECT 1"]],
    "embedding/*": [["training", "start_from", "version:1"]],
    "certificate.pem": [["api", "tls_key", "key.pem"]],
    "key.pem": [["api", "tls_certificate", "certificate.pem"]],
    "authority.pem": [["api", "tls_certificate", "certificate.pem"], ["api", "tls_key", "key.pem"]],
    "17": [["training", "workers", ",".join(f"host-{number}:1" for number in range(18))]],
}


@pytest.fixture(scope="module")
def incomplete_stages(finished: tuple[Path, CommandResult]) -> dict[tuple[str, str], set[str]]:
    """The stages of the finished folder that are incomplete with each row of the table changed."""
    rows = [[section, key, value, REQUIRED_SETTINGS.get(value, [])] for section, key, value, _ in ANOTHER_VALUE]
    done = subprocess.run(
        [sys.executable, "-c", LIST_INCOMPLETE_STAGES, DATE],
        cwd=finished[0], env=environment(), input=json.dumps(rows), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {(row[0], row[1]): set(names) for row, names in zip(rows, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize(
    ("section", "key", "_value", "expected"), ANOTHER_VALUE, ids=[f"{row[0]}.{row[1]}" for row in ANOTHER_VALUE]
)
def test_another_value_makes_exactly_the_stages_that_depend_on_it_incomplete(
    incomplete_stages: dict[tuple[str, str], set[str]], section: str, key: str, _value: str, expected: set[str]
) -> None:
    assert incomplete_stages[section, key] == expected


def test_the_table_of_other_values_has_every_setting() -> None:
    declared_keys = {
        (section, setting.key) for section, cls in SECTIONS.items() for setting in declared_settings(section, cls)
    }
    assert declared_keys - {(row[0], row[1]) for row in ANOTHER_VALUE} == set()


REAL_RERUNS = [
    ("nothing", {}, set()),
    ("a log level", {"console": {"log_level": "DEBUG"}}, set()),
    ("rnn_units", {"network": {"rnn_units": "9"}}, TRAINING),
]


@pytest.mark.parametrize(("_name", "settings", "expected"), REAL_RERUNS, ids=[row[0] for row in REAL_RERUNS])
def test_another_value_runs_exactly_the_stages_that_depend_on_it(
    copied: Path, _name: str, settings: Settings, expected: set[str]
) -> None:
    write_settings(copied, merge_settings(SMALL, settings))
    done = luigi(copied, "ScoreBatch", "--date", DATE)
    assert (done.code, done.ran) == (0, expected), done.output


def test_a_new_threshold_supersedes_the_batch_and_keeps_the_probabilities(copied: Path) -> None:
    write_settings(copied, merge_settings(SMALL, {"scoring": {"threshold": "0.9"}}))
    assert luigi(copied, "ScoreBatch", "--date", DATE).ran == SCORING
    assert query(copied, "select state, threshold from score_batches order by batch_id") == [
        ("superseded", read_first_threshold(copied)), ("published", 0.9),
    ]  # fmt: skip
    first, second = (
        query(copied, f"select message_id, spam_probability from spam_scores where batch_id = {n} order by message_id")
        for n in (1, 2)
    )
    assert first == second


@pytest.mark.slow
def test_model_version_selects_the_version_of_a_batch(trained_again: Path) -> None:
    assert luigi(trained_again, "ScoreBatch", "--date", DATE).code == 0
    assert query(trained_again, "select model_version from score_batches where state = 'published'") == [(2,)]
    done = luigi(trained_again, "ScoreBatch", "--date", DATE, "--model-version", "1")
    assert done.ran == {"ScoreBatch"}
    assert query(trained_again, "select model_version from score_batches where state = 'published'") == [(1,)]


def test_the_next_batch_is_scored_with_the_version_put_in_service(copied: Path) -> None:
    exports = copied / "artifacts" / "exports" / "spam_ham"
    manifest = read_manifest(exports / "1")
    shutil.copytree(exports / "1", exports / "2")
    write_manifest(exports / "2", {**manifest, "version": 2})
    for version, date in ((2, "2026-02-01"), (1, "2026-02-02")):
        command = [Path(sys.executable).with_name("spamscore"), "serve", str(version), "--yes"]
        subprocess.run(command, cwd=copied, env=environment(), check=True, capture_output=True)
        assert luigi(copied, "ScoreBatch", "--date", date).ran == {"ExtractMessages", "ScoreBatch"}
        assert query(copied, f"select model_version from score_batches where batch_date = '{date}'") == [(version,)]


@pytest.mark.parametrize("stage", STAGES[:-2])
def test_each_stage_runs_on_its_own(finished: tuple[Path, CommandResult], stage: str) -> None:
    assert luigi(finished[0], stage).code == 0


def test_tensorflow_logs_nothing_by_default(finished: tuple[Path, CommandResult], copied: Path) -> None:
    chatter = ("oneDNN", "cuInit", "cudart", "WARNING:tensorflow", "absl")
    assert not [word for word in chatter if word in finished[1].output]
    write_settings(copied, merge_settings(SMALL, {"console": {"tensorflow_log": "INFO"}}))
    output = luigi_cold(copied, "ScoreBatch", "--date", "2026-02-01").output
    assert [word for word in chatter if word in output]  # which of them depends on the processor


@pytest.mark.parametrize("level", ["ERROR", "FATAL"])
def test_the_log_level_is_a_setting(copied: Path, level: str) -> None:
    console = {"log_level": level, "tensorflow_log": level}
    write_settings(copied, merge_settings(SMALL, {"console": console, "core": {"log_level": "ERROR"}}))
    done = luigi(copied, "ScoreBatch", "--date", "2026-02-01")
    assert (done.code, done.output.strip()) == (0, "")


def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    finished: tuple[Path, CommandResult], copied: Path
) -> None:
    settings = merge_settings(SMALL, {"training": {"checkpoint_steps": "3"}})
    write_settings(copied, settings)
    shutil.rmtree(copied / "artifacts" / "training")
    training = copied / "artifacts" / "training"
    for step in (6, 21, 36):
        kill_when(
            copied, ("TrainModel",), lambda step=step: bool(list(training.glob(f"*.partial/*/ckpt-{step}.index")))
        )
        assert not [path for path in training.iterdir() if not path.name.endswith(".partial")]
    done = luigi(copied, "TrainModel")
    assert "resuming training from" in done.output
    (killed,), (whole,) = training.iterdir(), (finished[0] / "artifacts" / "training").iterdir()
    assert killed.name == whole.name
    descriptions = [json.loads((folder / "model.json").read_text(encoding="utf-8")) for folder in (killed, whole)]
    assert descriptions[0]["weights_sha256"] == descriptions[1]["weights_sha256"]


def test_a_batch_killed_between_chunks_resumes_and_ends_with_the_same_rows(
    finished: tuple[Path, CommandResult], copied: Path
) -> None:
    write_settings(copied, merge_settings(SMALL, {"scoring": {"chunk_size": "2"}}))
    (copied / "spamscore.db").unlink()
    kill_when(copied, ("ScoreBatch", "--date", DATE), lambda: count_committed_chunks(copied) > 0)
    assert query(copied, "select count(*) from published_scores") == [(0,)]
    done = luigi(copied, "ScoreBatch", "--date", DATE)
    assert (done.code, "resumed" in done.output) == (0, True), done.output
    scores = "select message_id, spam_probability, flagged from published_scores order by message_id"
    killed, whole = query(copied, scores), query(finished[0], scores)
    assert [row[0] for row in killed] == [row[0] for row in whole]
    assert np.allclose([float(str(row[1])) for row in killed], [float(str(row[1])) for row in whole], rtol=0, atol=1e-5)
    assert query(copied, "select count(*) from score_batches") == [(1,)]


# No score reaches this threshold, so the model is no better than the majority class.
REFUSED = {"training": {"epochs": "1"}, "scoring": {"threshold": "1.0"}}


def test_a_refused_model_is_reported_and_the_batch_is_scored_with_the_version_in_service(copied: Path) -> None:
    write_settings(copied, merge_settings(SMALL, REFUSED))
    done = luigi(copied, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    assert "kept out of service" in done.output
    assert "not exported" in done.output
    assert query(copied, "select model_version from score_batches where state = 'published'") == [(1,)]
    published, refusal = get_closing_lines(done)
    assert refusal.startswith(
        "the model of the settings in force was refused, and version 1 stays in service: accuracy"
    )
    assert refusal.endswith("report.html shows more; to overrule it: spamscore serve --refused")
    assert published.startswith(f"batch 2 of {DATE} is published: ")
    next_night = luigi(copied, "ScoreBatch", "--date", "2026-02-01")
    assert (next_night.code, next_night.ran) == (0, {"ExtractMessages", "ScoreBatch"})
    assert get_closing_lines(next_night)[-1] == refusal
    explicit = luigi(copied, "ScoreBatch", "--date", "2026-02-02", "--model-version", "1")
    assert (explicit.code, "refused" in explicit.output) == (0, False)
    assert [path.name for path in (copied / "artifacts" / "exports" / "spam_ham").iterdir() if path.is_dir()] == ["1"]


def get_closing_lines(done: CommandResult) -> list[str]:
    """Returns the lines after Luigi's summary."""
    return [line.removeprefix("spamscore: ") for line in done.output.splitlines() if line.startswith("spamscore: ")]


def test_a_run_whose_first_model_is_refused_fails_with_the_reasons(tmp_path: Path) -> None:
    write_settings(tmp_path, merge_settings(SMALL, REFUSED))
    done = luigi(tmp_path, "ScoreBatch", "--date", DATE)
    assert done.code == 30
    assert "no version is in service" in done.last_line
    assert not (tmp_path / "spamscore.db").exists() or query(tmp_path, "select count(*) from published_scores") == [
        (0,)
    ]


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Returns the metrics of the evaluations, latest first."""
    folders = sorted((folder / "artifacts" / "evaluation").iterdir(), key=lambda path: -path.stat().st_ctime_ns)
    return [json.loads((path / "metrics.json").read_text(encoding="utf-8")) for path in folders]


def test_a_new_model_is_compared_with_the_version_in_service_on_the_test_part_and_the_latest_batch(
    copied: Path,
) -> None:
    write_settings(
        copied, merge_settings(SMALL, {"training": {"seed": "8"}, "gate": {"flip_budget": "1", "resamples": "200"}})
    )
    assert luigi(copied, "EvaluateModel").code == 0
    new, first = read_evaluations(copied)
    assert [check["name"] for check in first["checks"]] == ["majority", "chance"]
    assert (first["in_service_version"], first["flips"]) == (None, None)
    names = ["majority", "chance", "pr_auc", "recall", "calibration_error", "flips"]
    assert [check["name"] for check in new["checks"]] == names
    assert (new["in_service_version"], new["in_service"]["messages"]) == (1, new["messages"])
    assert new["in_service"]["threshold"] == first["threshold"]
    ((scored,),) = query(copied, "select scored from score_batches")
    assert new["flips"]["messages"] == scored
    assert new["flips"]["source"] == f"the messages of {DATE} (batch 1)"
    for comparison in new["compared"]:
        difference = comparison["difference"]
        assert difference["low"] <= difference["value"] <= difference["high"]


UNAVAILABLE_BATCHES = {
    "no database": ("spamscore.db*", "no batch is published"),
    "no snapshot": (f"artifacts/snapshots/{DATE}*", "are no longer in"),
    "no checkpoints": (
        "artifacts/training/{of_version_1}",
        "the checkpoints of version 1, which is in service, are not in",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("reason", UNAVAILABLE_BATCHES)
def test_without_a_batch_to_compare_on_the_flip_check_is_skipped(trained_again: Path, reason: str) -> None:
    pattern, explanation = UNAVAILABLE_BATCHES[reason]
    paths = list(trained_again.glob(pattern.format(of_version_1=find_training_of_version_1(trained_again).name)))
    assert paths
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # The verdicts of the new model are the same.
    write_settings(trained_again, merge_settings(SMALL, {"training": PATIENT, "gate": {"flip_budget": "0"}}))
    assert luigi(trained_again, "EvaluateModel").code == 0
    new = read_evaluations(trained_again)[0]
    assert new["approved"] is True
    assert new["checks"][-1]["passed"] is None
    assert explanation in new["checks"][-1]["said"]


def find_training_of_version_1(folder: Path) -> Path:
    artifacts = folder / "artifacts"
    return artifacts / "training" / read_manifest(artifacts / "exports" / "spam_ham" / "1")["training"]


@pytest.mark.slow
def test_a_version_with_an_older_format_is_not_compared(trained_again: Path) -> None:
    training = find_training_of_version_1(trained_again)
    manifest = {key: value for key, value in read_manifest(training).items() if key not in {"files", "manifest_sha256"}}
    vocabulary = training / "vocabulary.json"
    vocabulary.write_text(vocabulary.read_text(encoding="utf-8").replace('"format_version": 2', '"format_version": 1'))
    write_manifest(training, manifest)
    assert luigi(trained_again, "ScoreBatch", "--date", DATE).code == 0
    new = read_evaluations(trained_again)[0]
    assert (new["approved"], new["in_service_version"]) == (True, None)
    assert "version 1, which is in service, cannot be read by this spamscore" in new["checks"][-1]["said"]
    assert query(trained_again, "select model_version from score_batches where state = 'published'") == [(2,)]


@pytest.mark.slow
def test_serve_refused_overrules_the_gate(copied: Path) -> None:
    serve = [Path(sys.executable).with_name("spamscore"), "serve", "--refused", "--yes"]
    options = {"cwd": copied, "env": environment(), "capture_output": True, "text": True, "check": False}
    exported_already = subprocess.run(serve, **options)
    assert (exported_already.returncode, "exported already" in exported_already.stderr) == (1, True)
    write_settings(copied, merge_settings(SMALL, REFUSED))
    not_evaluated = subprocess.run(serve, **options)
    assert (not_evaluated.returncode, "nothing to overrule" in not_evaluated.stderr) == (1, True)
    assert luigi(copied, "ExportModel").code == 0
    done = subprocess.run(serve, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("version 2 is in service until a newer one is exported; the gate is overruled")
    exported = copied / "artifacts" / "exports" / "spam_ham" / "2"
    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["judged"]["approved"] is False
    assert manifest["judged"]["reasons"]
    assert (
        "**not approved**, published because a person overruled the verdict" in (exported / "model_card.md").read_text()
    )
    assert luigi(copied, "ScoreBatch", "--date", DATE).code == 0
    assert query(copied, "select model_version from score_batches where state = 'published'") == [(2,)]


def test_two_devices_write_the_scores_of_one(finished: tuple[Path, CommandResult], copied: Path) -> None:
    write_settings(copied, merge_settings(SMALL, {"devices": {"logical_cpus": "2", "devices": "cpu:0,cpu:1"}}))
    assert luigi(copied, "ScoreBatch", "--date", "2026-02-01").code == 0
    (row,) = query(copied, "select devices from score_batches where batch_date = '2026-02-01'")
    assert row == ("cpu:0,cpu:1",)
    first, second = (
        dict(query(copied, f"select message_id, spam_probability from published_scores where batch_date = '{date}'"))
        for date in (DATE, "2026-02-01")
    )
    assert first.keys() == second.keys()
    assert max(abs(first[key] - second[key]) for key in first) <= 1e-5


def test_the_same_chain_writes_to_every_database(
    finished: tuple[Path, CommandResult], copied: Path, database_url: str
) -> None:
    done = luigi(copied, "ScoreBatch", "--date", "2026-02-01", SPAMSCORE_DATABASE_URL=database_url)
    assert done.code == 0, done.output
    engine = sa.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select message_id, spam_probability, flagged from published_scores")).all()
    engine.dispose()
    expected = query(finished[0], "select message_id, spam_probability, flagged from published_scores")
    assert sorted((i, p, bool(f)) for i, p, f in rows) == sorted((i, p, bool(f)) for i, p, f in expected)  # type: ignore[misc]


@pytest.mark.slow
def test_sigterm_stops_a_training_at_a_step_and_the_next_run_resumes_there(
    finished: tuple[Path, CommandResult], copied: Path
) -> None:
    settings = merge_settings(SMALL, {"training": {"checkpoint_steps": "1000"}})
    write_settings(copied, settings)
    shutil.rmtree(copied / "artifacts" / "training")
    training = copied / "artifacts" / "training"
    ended = terminate_when(
        copied, ("TrainModel",), lambda: bool(list(training.glob("*.partial/checkpoints/ckpt-*.index")))
    )
    assert ended.code == 143
    assert ended.last_line == "spamscore: ended by SIGTERM; run the same command again to continue from here"
    assert "Traceback" not in ended.output
    done = luigi(copied, "TrainModel")
    assert "resuming training from" in done.output
    (again,), (whole,) = training.iterdir(), (finished[0] / "artifacts" / "training").iterdir()
    descriptions = [json.loads((folder / "model.json").read_text(encoding="utf-8")) for folder in (again, whole)]
    assert descriptions[0]["weights_sha256"] == descriptions[1]["weights_sha256"]


def test_sigterm_stops_a_batch_between_two_chunks(copied: Path) -> None:
    write_settings(copied, merge_settings(SMALL, {"scoring": {"chunk_size": "2"}}))
    (copied / "spamscore.db").unlink()
    ended = terminate_when(copied, ("ScoreBatch", "--date", DATE), lambda: count_committed_chunks(copied) > 0)
    assert ended.code == 143
    assert query(copied, "select state from score_batches") == [("running",)]
    done = luigi(copied, "ScoreBatch", "--date", DATE)
    assert (done.code, "resumed" in done.output) == (0, True)
