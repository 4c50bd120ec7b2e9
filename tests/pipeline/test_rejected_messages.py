"""Nights with too many rejected messages: nothing of them is published, and a repaired source is read again.

Also how the messages of a finished date are read again, and what is said about their source.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm
from chain import (
    DATE,
    LUIGI,
    SMALL,
    CommandResult,
    Settings,
    environment,
    kill_group_on_exit,
    luigi,
    merge_settings,
    query,
    start_command,
    wait_until,
    write_settings,
)
from receivers import Web, web_server

SPAMSCORE = LUIGI.with_name("spamscore")
NAMES = ("message_id", "text", "sent")


class Row(NamedTuple):
    message_id: str
    text: str | None
    sent: str


GOOD = [Row(f"m{number}", f"win prize {number} today", DATE) for number in range(10)]
REPAIRED = [*GOOD, Row("m10", "one more", DATE)]

# Sources


def write_csv(rows: Sequence[Sequence[str | None]], folder: Path, separator: str = ",", name: str = "in.csv") -> None:
    lines = [separator.join(value or "" for value in row) for row in [NAMES, *rows]]
    (folder / name).write_text("\n".join(lines) + "\n")


def write_tsv(rows: Sequence[Sequence[str | None]], folder: Path) -> None:
    write_csv(rows, folder, "\t", "in.tsv")


def write_jsonl(rows: Sequence[Sequence[str | None]], folder: Path) -> None:
    lines = [json.dumps(dict(zip(NAMES, row, strict=True)) if len(row) == len(NAMES) else row) for row in rows]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")


def write_parquet(rows: Sequence[Sequence[str | None]], folder: Path) -> None:
    columns = {name: pa.array(values, pa.string()) for name, values in zip(NAMES, zip(*rows, strict=True), strict=True)}
    pq.write_table(pa.table(columns), folder / "in.parquet")


def write_table(rows: Sequence[Sequence[str | None]], folder: Path) -> None:
    with closing(sqlite3.connect(folder / "in.db")) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS inbox")
        connection.execute("CREATE TABLE inbox (message_id TEXT, text TEXT, sent TEXT)")
        connection.executemany("INSERT INTO inbox VALUES (?, ?, ?)", rows)


class Source(NamedTuple):
    write: Callable[[Sequence[Any], Path], None]
    settings: dict[str, str]
    name: str


def file_source(write: Callable[[Sequence[Any], Path], None], name: str) -> Source:
    return Source(write, {"source": "file", "path": name, "date_column": "sent"}, name)


SOURCES = {
    "csv": file_source(write_csv, "in.csv"),
    "tsv": file_source(write_tsv, "in.tsv"),
    "jsonl": file_source(write_jsonl, "in.jsonl"),
    "parquet": file_source(write_parquet, "in.parquet"),
    "sql": Source(
        write_table,
        {
            "source": "sql", "url": "sqlite:///in.db", "date_column": "sent",
            "query": "SELECT message_id, text, sent FROM inbox ORDER BY rowid",
        },
        "[messages] query",
    ),
}  # fmt: skip


class Fault(NamedTuple):
    """Rows of a bad source, and words of the error: the counts, and the reason with its first row."""

    rows: Sequence[Sequence[str | None]]
    count: str
    reason: str
    setting: str
    sources: tuple[str, ...] = tuple(SOURCES)


FAULTS = {
    "wrong number of fields": Fault(
        [*GOOD[:7], *(row[:2] for row in GOOD[7:])],
        "3 of 10 messages",
        "3 wrong number of fields (first in row 8: expected 3, received 2",
        "delimiter",
        ("csv", "tsv"),
    ),
    "no objects": Fault(
        [[row.text] for row in GOOD], "10 of 10 messages", "10 not a JSON object (first in row 1", "format", ("jsonl",)
    ),
    "texts in another column": Fault(
        [row._replace(text=None) for row in GOOD], "10 of 10 messages", "10 empty text (first in row 1)", "text_column"
    ),
    "one id for all": Fault(
        [row._replace(message_id="m") for row in GOOD],
        "9 of 10 messages",
        "9 repeated message_id (first in row 2: row 1 has it already)",
        "id_column",
    ),
    "half of the texts empty": Fault(
        [row._replace(text=None) if number % 2 else row for number, row in enumerate(GOOD)],
        "5 of 10 messages",
        "5 empty text (first in row 2)",
        "text_column",
    ),
    "dates of another format": Fault(
        [row._replace(sent="31/01/2026") for row in GOOD],
        "10 of 10 messages",
        "10 unreadable date (first in row 1: received '31/01/2026'",
        "date_column",
    ),
}
# Every fault in its first source, and every source with one fault. The other pairs are slow.
QUICK = {(case.sources[0], fault) for fault, case in FAULTS.items()}
QUICK |= {(source, "texts in another column") for source in SOURCES}
CASES = [
    pytest.param(source, fault, marks=() if (source, fault) in QUICK else pytest.mark.slow)
    for fault, case in FAULTS.items()
    for source in case.sources
]


def settings_of(source: Source, **values: str) -> Settings:
    return merge_settings(SMALL, {"messages": {**source.settings, **values}})


def score(folder: Path, task: str = "ScoreBatch") -> CommandResult:
    return luigi(folder, task, "--date", DATE)


def spamscore(folder: Path, *arguments: str, code: int = 0) -> str:
    done = CommandResult(*warm.run(SPAMSCORE, arguments, folder, environment()))
    assert done.code == code, done.output
    return done.output


def published_ids(folder: Path) -> list[str]:
    """Returns the identifiers that `spamscore scores` shows."""
    return sorted(line.split("\t")[2] for line in spamscore(folder, "scores", DATE).splitlines())


def ids(rows: Sequence[Row]) -> list[str]:
    return sorted(row.message_id for row in rows)


@pytest.fixture(scope="module")
def _published(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a folder in which the good messages of a source are published, by name of the source."""
    folders: dict[str, Path] = {}

    def publish(name: str) -> Path:
        if name not in folders:
            folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp(name), dirs_exist_ok=True))
            write_settings(folder, settings_of(SOURCES[name]))
            SOURCES[name].write(GOOD, folder)
            done = score(folder)
            assert done.code == 0, done.output
            folders[name] = folder
        return folders[name]

    return publish


@pytest.fixture
def publish(_published: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Returns a copy of such a folder, for a test to change."""
    return lambda name: Path(shutil.copytree(_published(name), tmp_path / "night"))


# The limit


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_bad_source_publishes_nothing_and_after_its_repair_the_same_command_works(
    publish: Callable[[str], Path], name: str, fault: str
) -> None:
    folder, source, case = publish(name), SOURCES[name], FAULTS[fault]
    spamscore(folder, "extract", DATE, "--again", "--yes")
    source.write(case.rows, folder)
    for _ in range(2):
        done = score(folder)
        assert done.code == 60, done.output
        assert source.name in done.last_line
        assert f"{case.count} of {DATE} were rejected" in done.last_line
        assert case.reason in done.last_line
        assert f"[messages] {case.setting}" in done.last_line
        assert "run the same command again" in done.last_line
        assert published_ids(folder) == ids(GOOD)
        assert query(folder, "select batch_id from score_batches where state in ('published', 'running')") == [(1,)]
    source.write(REPAIRED, folder)
    done = score(folder)
    assert done.code == 0, done.output
    assert published_ids(folder) == ids(REPAIRED)
    assert score(folder).ran == set()
    assert query(folder, "select count(*) from score_batches where state = 'published'") == [(1,)]


@pytest.mark.parametrize("rejected", [2, 3])
def test_a_share_up_to_the_limit_is_published(publish: Callable[[str], Path], rejected: int) -> None:
    folder = publish("csv")
    spamscore(folder, "extract", DATE, "--again", "--yes")
    write_csv([row._replace(text=None) if number < rejected else row for number, row in enumerate(GOOD)], folder)
    assert score(folder).code == (0 if rejected == 2 else 60)
    assert len(published_ids(folder)) == (8 if rejected == 2 else 10)


def test_the_limit_can_be_raised_but_a_date_without_a_score_fails_always(publish: Callable[[str], Path]) -> None:
    folder = publish("csv")
    write_settings(folder, settings_of(SOURCES["csv"], max_rejected_share="1"))
    spamscore(folder, "extract", DATE, "--again", "--yes")
    write_csv(FAULTS["texts in another column"].rows, folder)
    done = score(folder)
    assert (done.code, "none can be scored" in done.last_line, "raise the limit" in done.last_line) == (60, True, False)
    write_csv(FAULTS["one id for all"].rows, folder)
    assert score(folder).code == 0
    assert published_ids(folder) == ["m"]


def test_a_snapshot_that_was_published_before_is_kept_and_the_way_out_is_named(publish: Callable[[str], Path]) -> None:
    folder = publish("csv")
    write_settings(folder, settings_of(SOURCES["csv"], max_rejected_share="1"))
    spamscore(folder, "extract", DATE, "--again", "--yes")
    write_csv(FAULTS["one id for all"].rows, folder)
    assert score(folder).code == 0
    write_settings(folder, merge_settings(settings_of(SOURCES["csv"]), {"scoring": {"threshold": "0.4"}}))
    done = score(folder)
    assert done.code == 60
    assert f"spamscore extract {DATE} --again first" in done.last_line
    assert published_ids(folder) == ["m"]
    write_settings(
        folder,
        merge_settings(settings_of(SOURCES["csv"], max_rejected_share="1"), {"scoring": {"threshold": "0.4"}}),
    )
    (folder / "in.csv").unlink()
    assert score(folder).code == 0, "the snapshot is still there"


def test_a_source_without_a_message_of_the_date_does_not_replace_published_messages(
    publish: Callable[[str], Path],
) -> None:
    folder = publish("csv")
    ids = published_ids(folder)
    spamscore(folder, "extract", DATE, "--again", "--yes")
    write_csv([row._replace(sent="2026-01-01") for row in GOOD], folder)
    done = score(folder)
    assert done.code == 60, done.output
    assert f"received none, but batch 1 with {len(ids)} messages is published for the date" in done.last_line
    assert published_ids(folder) == ids
    spamscore(folder, "withdraw", DATE, "--yes")
    assert score(folder).code == 0
    assert query(folder, "select scored from score_batches where state = 'published'") == [(0,)]


def test_each_date_of_several_is_scored_or_refused_on_its_own(publish: Callable[[str], Path]) -> None:
    folder = publish("csv")
    days = ["2026-02-01", "2026-02-02", "2026-02-03"]
    rows = [row._replace(sent=day) for day in days for row in GOOD]
    write_csv([row if row.sent == days[1] else row._replace(message_id="m") for row in rows], folder)
    done = luigi(folder, "ScoreBatch", "--date", f"{days[0]}..{days[2]}")
    assert done.code == 60, done.output
    assert "2 of 2 dates failed. " in done.last_line, "they were tried again without the date that was published"
    assert "9 repeated message_id (first in row 2: row 1 has it already)" in done.last_line
    assert "(first in row 2 of the snapshot, row 22 of the source: row 1 has it already)" in done.last_line
    assert query(folder, "select published_date from score_batches where published_date > '2026-01-31'") == [(days[1],)]


def test_a_date_of_several_whose_source_is_bad_does_not_keep_the_others_from_being_scored(
    publish: Callable[[str], Path],
) -> None:
    folder = publish("csv")
    write_settings(folder, settings_of(SOURCES["csv"], path="{date}.csv"))
    for day in (1, 2, 4):
        write_csv([row._replace(sent=f"2026-02-0{day}") for row in GOOD], folder, name=f"2026-02-0{day}.csv")
    write_csv(FAULTS["dates of another format"].rows, folder, name="2026-02-02.csv")
    published = "select published_date from score_batches where published_date > '2026-01-31' order by 1"
    done = luigi(folder, "ScoreBatch", "--date", "2026-02-01..2026-02-04")
    assert done.code != 0
    assert done.output.count("loaded, from checkpoint") == 1
    last_lines = "\n".join(line for line in done.output.splitlines() if line.startswith("spamscore: "))
    assert "2026-02-02.csv: 10 of 10 messages" in last_lines
    assert "2026-02-03.csv: no such file" in last_lines
    assert query(folder, published) == [("2026-02-01",), ("2026-02-04",)]
    for day in (2, 3):
        write_csv([row._replace(sent=f"2026-02-0{day}") for row in GOOD], folder, name=f"2026-02-0{day}.csv")
    assert luigi(folder, "ScoreBatch", "--date", "2026-02-01..2026-02-04").code == 0
    assert len(query(folder, published)) == 4


def test_a_source_with_other_dates_only_is_named_on_the_last_lines(publish: Callable[[str], Path]) -> None:
    done = luigi(publish("csv"), "ScoreBatch", "--date", "2026-02-01")
    assert done.code == 0
    last_lines = "\n".join(done.output.splitlines()[-2:])
    assert "in.csv: no message of 2026-02-01; 10 of other dates, 2026-01-31 to 2026-01-31, left out" in last_lines
    assert "spamscore extract 2026-02-01 --again" in last_lines


def test_a_source_that_is_repaired_between_two_attempts_of_a_run_is_published(publish: Callable[[str], Path]) -> None:
    folder, source = publish("csv"), SOURCES["csv"]
    # Luigi does not accept a task again within ten seconds after it was done, unless the cooldown says otherwise.
    scheduler = {"retry_count": "3", "retry_delay": "5", "prune_on_get_work": "true", "stable_done_cooldown_secs": "0"}
    retries: Settings = {
        "worker": {"keep_alive": "true", "wait_interval": "1", "max_keep_alive_idle_duration": "10m"},
        "scheduler": scheduler,
    }
    write_settings(folder, merge_settings(settings_of(source), retries))
    spamscore(folder, "extract", DATE, "--again", "--yes")
    source.write(FAULTS["one id for all"].rows, folder)
    log = folder / "run.log"
    with log.open("wb") as output:
        process = start_command(folder, ("ScoreBatch", "--date", DATE), output.fileno())
        with kill_group_on_exit(process):
            wait_until(process, lambda: b"were rejected" in log.read_bytes())
            source.write(REPAIRED, folder)
            process.wait(timeout=300)
    assert process.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert "failed" not in log.read_text().splitlines()[-1]
    assert published_ids(folder) == ids(REPAIRED)


# Killed while a snapshot is discarded

# Runs the real `luigi` command; the process of the task is killed where it would call a function.
KILLED_SCRIPT = """
import os, signal, sys, types
sys.argv[0] = "luigi"
module, name = sys.argv.pop(1).split(":")
import luigi.cmdline
import pipeline
import importlib
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
target = importlib.import_module(module)
if "." in name:
    holder, name = name.split(".")
    setattr(target, holder, types.SimpleNamespace(**{name: kill}))
else:
    setattr(target, name, kill)
luigi.cmdline.luigi_run(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "runs"),
    [
        ("tasks.scoring.refusal:withdraw_batch", 1),
        ("tasks.scoring.refusal:shutil.rmtree", 1),
        ("tasks.artifacts.editions:write_json", 2),  # before the discard began: the snapshot is refused once more
    ],
)
def test_a_run_that_is_killed_while_it_discards_a_snapshot_does_no_harm(
    publish: Callable[[str], Path], function: str, runs: int
) -> None:
    folder = publish("csv")
    spamscore(folder, "extract", DATE, "--again", "--yes")
    write_csv(FAULTS["one id for all"].rows, folder)
    command = [sys.executable, "-c", KILLED_SCRIPT, function, "--module", "pipeline", "ScoreBatch", "--date", DATE]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert "was killed by SIGKILL" in done.stderr, done.stderr
    assert published_ids(folder) == ids(GOOD)
    write_csv(REPAIRED, folder)
    codes = [score(folder).code for _ in range(runs)]
    assert codes == [60] * (runs - 1) + [0]
    assert published_ids(folder) == ids(REPAIRED)
    assert query(folder, "select count(*) from score_batches where state = 'running'") == [(0,)]


# Alerts and reports


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["dates of another format", "one id for all"])
def test_a_night_with_many_rejected_messages_sends_one_alert_and_one_recovery(
    publish: Callable[[str], Path], web: Web, fault: str
) -> None:
    folder = publish("csv")
    (folder / "metrics").mkdir()
    watched: Settings = {"alerts": {"webhook_url": web.url}, "metrics": {"textfile_folder": "metrics"}}
    write_settings(folder, merge_settings(settings_of(SOURCES["csv"]), watched))
    spamscore(folder, "extract", DATE, "--again", "--yes")
    write_csv(FAULTS[fault].rows, folder)
    assert [score(folder, "Nightly").code for _ in range(2)] == [60, 60]
    (alert,) = web.messages
    assert (alert["kind"], alert["state"], alert["date"]) == ("rejected", "open", DATE)
    assert "too many messages were rejected" in alert["text"]
    assert FAULTS[fault].reason in alert["said"]
    metrics = (folder / "metrics" / "spamscore_run.prom").read_text()
    assert "spamscore_run_failed 1.0" in metrics
    assert 'spamscore_alerts_open{kind="rejected"} 1.0' in metrics
    write_csv(REPAIRED, folder)
    assert score(folder, "Nightly").code == 0
    assert [(message["kind"], message["state"]) for message in web.messages[1:]] == [("rejected", "recovered")]


def test_a_night_with_a_single_score_of_many_messages_has_a_report_and_metrics(publish: Callable[[str], Path]) -> None:
    folder = publish("csv")
    (folder / "metrics").mkdir()
    watched: Settings = {"metrics": {"textfile_folder": "metrics"}}
    write_settings(folder, merge_settings(settings_of(SOURCES["csv"], max_rejected_share="1"), watched))
    spamscore(folder, "extract", DATE, "--again", "--yes")
    write_csv(FAULTS["one id for all"].rows, folder)
    done = score(folder, "Nightly")
    assert done.code == 0, done.output
    (report,) = folder.glob(f"artifacts/reports/{DATE}/*.json")
    content = json.loads(report.read_text())
    assert content["rejected"] == {"repeated message_id": 9}
    assert (content["counts"]["read"], content["counts"]["scored"]) == (10, 1)
    assert "spamscore_batch_rejected_share 0.9" in (folder / "metrics" / "spamscore_batch.prom").read_text()
    for page in (*folder.glob("artifacts/reports/**/*.html"), report):
        assert "NaN" not in page.read_text()
        assert ">nan" not in page.read_text()


# Reading the messages again


def test_withdrawing_a_batch_has_the_source_read_again_and_restoring_it_keeps_it_published(
    publish: Callable[[str], Path],
) -> None:
    folder = publish("csv")
    write_csv(REPAIRED, folder)
    assert "reads its messages from the source again" in spamscore(folder, "withdraw", DATE, "--yes")
    assert score(folder).code == 0
    assert published_ids(folder) == ids(REPAIRED)
    spamscore(folder, "restore", DATE, "--batch", "1", "--yes")
    done = score(folder)
    assert (done.code, done.ran) == (0, set())
    assert published_ids(folder) == ids(GOOD)
    spamscore(folder, "extract", DATE, "--again", "--yes")
    assert score(folder).code == 0
    assert published_ids(folder) == ids(REPAIRED)


def test_a_withdrawn_date_whose_file_is_gone_can_be_restored(publish: Callable[[str], Path]) -> None:
    folder = publish("csv")
    (folder / "in.csv").unlink()
    spamscore(folder, "withdraw", DATE, "--yes")
    done = score(folder)
    assert (done.code, "in.csv" in done.last_line) == (20, True)
    spamscore(folder, "restore", DATE, "--batch", "1", "--yes")
    done = score(folder)
    assert (done.code, done.ran) == (0, set())
    assert published_ids(folder) == ids(GOOD)


def test_a_finished_date_says_what_it_was_read_from_and_which_file_was_modified_since(
    publish: Callable[[str], Path],
) -> None:
    folder = publish("csv")
    for task in ("ScoreBatch", "ExtractMessages"):
        last_line = score(folder, task).last_line
        assert "was already complete; nothing to do" in last_line
        assert "read from in.csv on 20" in last_line
        assert f"spamscore extract {DATE} --again" in last_line
        assert "modified" not in last_line
    assert "Batch 1 is published" in score(folder).last_line
    assert luigi(folder, "ScoreBatch", "--date", "2026-01-30").code == 0
    write_csv(REPAIRED, folder)
    modified = "in.csv was modified after it was read"
    for output in (
        score(folder).last_line,
        score(folder, "ExtractMessages").last_line,
        luigi(folder, "ScoreBatch", "--date", "2026-01-30..2026-01-31").last_line,
        spamscore(folder, "summary", DATE),
        spamscore(folder, "extract", DATE),
    ):
        assert modified in " ".join(output.split())  # a narrow terminal wraps the table
    assert json.loads(spamscore(folder, "extract", DATE, "--json"))["changes"]
    (folder / "in.csv").unlink()
    assert "modified" not in score(folder).last_line


def test_a_run_with_nothing_to_do_imports_neither_a_database_library_nor_pandas(publish: Callable[[str], Path]) -> None:
    code = (
        f"import datetime, sys, pipeline; task = pipeline.ScoreBatch(date=datetime.date.fromisoformat({DATE!r})); "
        "print(task.complete(), 'Batch 1' in task.describe_completion(), "
        "*[name for name in ('sqlalchemy', 'pandas', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    variables = environment(PYTHONPATH=os.environ.get("PYTHONPATH", str(Path(__file__).parents[2])))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=publish("csv"), env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
