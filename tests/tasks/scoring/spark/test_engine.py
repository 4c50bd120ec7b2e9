"""Scoring on a real standalone Spark cluster: the result of the local engine, and no secret where others see it."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import servers
import sqlalchemy as sa
from chain import (
    LUIGI,
    SMALL,
    CommandResult,
    Settings,
    environment,
    kill_group_on_exit,
    luigi_cold,
    merge_settings,
    write_settings,
)
from eventually import eventually
from hypothesis import given
from hypothesis import strategies as st
from luigid import Luigid
from object_store import ObjectStore
from real_corpus import real_messages
from servers import PASSWORD, free_port
from spark_cluster import SparkCluster, require_spark, spark_cluster

from models.errors import ClusterError
from tasks.scoring.batch import CommittedMessages
from tasks.scoring.spark.engine import SparkEngine, split_evenly
from tasks.settings.spark import SparkSettings

CHUNK_SIZE = 40
# Every column of the rows and of the batch that a reader gets, except numbers, times and what computed them.
SCORES = "select message_id, spam_probability, flagged from spam_scores where batch_id = :batch order by message_id"
REJECTED = (
    "select row_number, message_id, reason, detail from rejected_messages where batch_id = :batch order by row_number"
)
BATCH = (
    "select model_version, checkpoint, snapshot, threshold, messages_read, scored, rejected, flagged, checksum, recipe "
    "from score_batches where batch_id = :batch"
)
HOSTILE = [
    "", " \u2003\n", "\u202eabc", "a" * 100_000, "\x1b[2J\x1b[31m", "z\u0335\u0321" * 500, "\ud7ff\ue000",
    "%s%n{}$(id)", "\u200bF\u200br\u200be\u200be", "\U0001f600" * 300, "'; DROP TABLE spam_scores; --",
    "w i n  c a s h", "=1+1|cmd",
]  # fmt: skip


@dataclass
class Site:
    """A cluster, a database server, and a folder with a model in service."""

    cluster: SparkCluster
    url: str
    folder: Path
    store: ObjectStore

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a command."""
        return {"SPAMSCORE_DATABASE_URL": self.url, **self.store.environment}

    def settings(self, engine: str, extra: Settings | None = None) -> None:
        """Writes luigi.cfg for an engine."""
        spark = {"master": self.cluster.url, "executors": "2", "timeout": "120"}
        scoring = {"engine": engine, "chunk_size": str(CHUNK_SIZE)}
        write_settings(self.folder, merge_settings(SMALL, {"scoring": scoring, "spark": spark}, extra or {}))

    def score(self, date: str, *arguments: str) -> CommandResult:
        """Scores a date in a new process."""
        return luigi_cold(self.folder, "ScoreBatch", "--date", date, *arguments, **self.variables)

    def query(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT."""
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(sa.text(statement), values)]
        engine.dispose()
        return rows

    def read_batch(self, date: str) -> list[list[tuple[Any, ...]]]:
        """Returns everything about the published batch of a date that both engines must agree on."""
        ((batch,),) = self.query("select batch_id from score_batches where published_date = :date", date=date)
        return [self.query(statement, batch=batch) for statement in (SCORES, REJECTED, BATCH)]

    def score_by(self, engine: str, extra: Settings, date: str) -> list[list[tuple[Any, ...]]]:
        """Scores a date with an engine, after removing what was scored before, and returns the batch."""
        self.settings(engine, extra)
        self.empty()
        done = self.score(date)
        assert done.code == 0, done.output
        return self.read_batch(date)

    @contextlib.contextmanager
    def start(self, date: str, task: str = "ScoreBatch") -> Iterator[subprocess.Popen[bytes]]:
        """Starts scoring a date, with its output in the file ``output``, and kills its process group at the end."""
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [LUIGI, "--module", "pipeline", task, "--date", date], cwd=self.folder, stdout=output,
                stderr=subprocess.STDOUT, env=environment(**self.variables), start_new_session=True,
            )  # fmt: skip
        with kill_group_on_exit(process):
            yield process

    @contextlib.contextmanager
    def held_commits(self) -> Iterator[None]:
        """Makes every commit of a chunk wait, after its row of the ledger, until the block ends."""
        engine = sa.create_engine(self.url)
        with engine.connect() as connection, connection.begin():
            connection.execute(sa.text("lock table spam_scores in share mode"))
            yield
        engine.dispose()

    def count_waiting_commits(self) -> int:
        """Returns how many commits wait."""
        ((count,),) = self.query("select count(*) from pg_locks where not granted")
        return int(count)

    def empty(self) -> None:
        """Deletes all batches."""
        for table in ("rejected_messages", "spam_scores", "batch_chunks", "score_batches"):
            self.execute(f"delete from {table}")

    def execute(self, statement: str) -> None:
        """Runs a statement."""
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()


@pytest.fixture(scope="module")
def site(trained: Path, object_store: ObjectStore) -> Iterator[Site]:
    require_spark()
    with servers.postgresql() as server, spark_cluster(**object_store.environment) as cluster:
        site = Site(cluster, server.url.render_as_string(hide_password=False), trained, object_store)
        site.settings("local")
        assert site.score("2026-01-01").code == 0
        yield site


def write_messages(folder: Path, texts: list[str]) -> Settings:
    """Writes messages to a CSV file, and returns the settings of the source; identifiers repeat across chunks."""
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["message_id", "text"])
        writer.writerows((f"m{number % (2 * CHUNK_SIZE + 7)}", text) for number, text in enumerate(texts))
    source = {"source": "file", "path": str(folder / "messages.csv"), "max_rejected_share": "1.0"}
    return {"messages": {**source, "max_replaced_share": "1.0"}}


def test_hostile_messages_and_repeated_ids_have_the_same_rows_and_checksum_on_both_engines(site: Site) -> None:
    texts = [text if number < len(HOSTILE) else f"{text}{number}" for number, text in enumerate(HOSTILE * 20)]
    source = write_messages(site.folder, texts)
    on_spark = site.score_by("spark", source, "2026-02-01")
    assert on_spark == site.score_by("local", source, "2026-02-01")
    assert len(on_spark[1]) > 2 * CHUNK_SIZE  # most identifiers are in several chunks


@pytest.mark.slow
def test_messages_of_the_real_corpus_have_the_same_bits_on_both_engines(site: Site) -> None:
    with (site.folder / "real.csv").open("w", newline="", encoding="utf-8") as file:
        rows = ((f"r{number}", text) for number, text in enumerate(real_messages()[:2_000]))
        csv.writer(file).writerows([("message_id", "text"), *rows])
    source: Settings = {"messages": {"source": "file", "path": "real.csv"}, "scoring": {"chunk_size": "300"}}
    assert site.score_by("spark", source, "2026-02-02") == site.score_by("local", source, "2026-02-02")


@pytest.mark.slow
def test_executors_use_a_packed_environment_and_read_snapshot_and_model_from_object_storage(
    site: Site, tmp_path: Path
) -> None:
    archive, used = pack_environment(tmp_path), tmp_path / "used"
    source: Settings = {"artifacts": {"shared": "s3://bucket/spamscore"}, "spark": {"archive": str(archive)}}
    on_local = site.score_by("local", source, "2026-02-09")
    site.store.heal()  # forgets the requests until now
    assert site.score_by("spark", source, "2026-02-09") == on_local
    requests = site.store.heal()
    read = [request["path"].rpartition("/")[2] for request in requests if request["method"] == "GET"]
    assert {"messages.parquet", "model.json", "vocabulary.json"} <= set(read)
    assert "environment/bin/python" in used.read_text("utf-8")


def pack_environment(folder: Path) -> Path:
    """Packs an environment whose Python records its path in the file ``used``, and is the Python of this process."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\necho "$PWD/$0" >> {folder}/used\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    with tarfile.open(folder / "environment.tar.gz", "w:gz") as archive:
        archive.add(python, "bin/python")
    return folder / "environment.tar.gz"


# A Python of executors imports this first.
FAILING_SCORER = """
from tasks.scoring import scorer as scorers

create_scorer = scorers.create_scorer

def create_failing_scorer(*arguments):
    scorer, checkpoint = create_scorer(*arguments)
    score = scorer.score
    def fail_or_score(texts):
        if any("poison" in text for text in (texts if isinstance(texts, list) else texts.to_pylist())):
            raise ValueError("cannot make sense of it")
        return score(texts)
    scorer.score = fail_or_score
    return scorer, checkpoint

scorers.create_scorer = create_failing_scorer
"""


@pytest.mark.slow
def test_messages_on_which_scoring_fails_are_rejected_on_executors(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING_SCORER, "utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec {sys.executable} "$@"\n', "utf-8")
    python.chmod(0o755)
    source = write_messages(site.folder, [f"text {number} {'poison' * (number in (3, 45))}" for number in range(80)])
    scores, rejected, _ = site.score_by(
        "spark", merge_settings(source, {"spark": {"python": str(python)}}), "2026-02-11"
    )
    detail = "ValueError: cannot make sense of it"
    assert rejected == [(row, f"m{row - 1}", "scoring failed", detail) for row in (4, 46)]
    assert len(scores) == 78


@pytest.mark.parametrize(
    ("first", "second"), [("local", "spark"), pytest.param("spark", "local", marks=pytest.mark.slow)]
)
def test_a_batch_begun_by_one_engine_is_finished_by_the_other(site: Site, first: str, second: str) -> None:
    date, many_chunks = "2026-02-03", {"scoring": {"chunk_size": "4"}}
    expected = site.score_by("local", many_chunks, date)
    site.empty()
    site.settings(first, many_chunks)
    with site.start(date) as process:
        eventually(lambda: site.query("select count(*) from batch_chunks") > [(2,)])
        with site.held_commits():
            eventually(site.count_waiting_commits)
            os.killpg(process.pid, signal.SIGKILL)
    site.settings(second, many_chunks)
    done = site.score(date)
    assert done.code == 0, done.output
    assert "resumed: " in done.output, site.query("select * from score_batches")
    assert site.read_batch(date) == expected


def test_several_dates_share_one_application_and_the_driver_does_not_load_tensorflow(site: Site) -> None:
    site.settings("spark")
    before = count_applications(site)
    with contextlib.ExitStack() as commits:
        commits.enter_context(site.held_commits())
        with site.start("2026-02-04..2026-02-06") as process:
            eventually(site.count_waiting_commits)
            driver = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
            loaded = {pid: read_maps(pid) for pid in driver}
            commits.close()
            assert process.wait(300) == 0, (site.folder / "output").read_text()
    published = "select count(*) from score_batches where published_date between '2026-02-04' and '2026-02-06'"
    assert site.query(published) == [(3,)]
    assert count_applications(site) - before == 1
    assert any("libjvm" in maps for maps in loaded.values())
    assert [pid for pid, maps in loaded.items() if "tensorflow" in maps] == []


def read_maps(pid: int) -> str:
    """Returns the libraries that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text("utf-8")


def count_applications(site: Site) -> int:
    """Returns how many applications have ended at the master."""
    return len(eventually(site.cluster.state, lambda state: state.get("activeapps") == [])["completedapps"])


def test_a_password_is_on_no_command_line_page_log_or_event_log(site: Site) -> None:
    events, port = site.folder / "events", free_port()
    events.mkdir()
    options = f"spark.eventLog.enabled=true spark.eventLog.dir=file://{events} spark.ui.port={port}"
    site.settings("spark", {"spark": {"options": options, "log": "INFO"}})
    places: dict[str, str] = {}
    with contextlib.ExitStack() as commits:
        commits.enter_context(site.held_commits())
        with site.start("2026-02-07") as process:
            eventually(site.count_waiting_commits)
            places |= {f"command line of {line.pid}": " ".join(command_line(line)) for line in psutil.process_iter()}
            places |= {page: read_page(f"http://localhost:{port}{page}") for page in PAGES}
            places["the master's page"] = read_page(site.cluster.page)
            commits.close()
            assert process.wait(300) == 0
    for path in (*events.rglob("*"), *site.cluster.folder.rglob("*"), site.folder / "output"):
        if path.is_file():
            places[str(path)] = path.read_text("utf-8", "replace")
    assert "CoarseGrainedExecutorBackend" in " ".join(places.values())
    assert "spark.executor.cores" in places["/environment/"]
    forms = (PASSWORD, sa.make_url(site.url).render_as_string(hide_password=False).split("@")[0].rpartition(":")[2])
    assert [place for place, text in places.items() if any(form in text for form in forms)] == []


PAGES = ("/environment/", "/executors/", "/jobs/", "/stages/", "/api/v1/applications")


def command_line(process: psutil.Process) -> Sequence[str]:
    """Returns the command line of a process; nothing if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return ()


def read_page(url: str) -> str:
    """Returns a web page."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


@pytest.mark.slow
def test_a_night_links_the_page_of_spark_and_hides_the_noise_of_spark(site: Site, tmp_path: Path) -> None:
    port = free_port()
    with Luigid(tmp_path / "luigid") as luigid, contextlib.ExitStack() as commits:
        spark = {"spark": {"options": f"spark.ui.port={port}"}, "run": {"catch_up_days": "0"}}
        site.settings("spark", merge_settings(luigid.settings, spark))
        commits.enter_context(site.held_commits())
        with site.start("2026-02-10", "Nightly") as process:
            eventually(site.count_waiting_commits)
            link = luigid.find_task("ScoreBatch")["tracking_url"]
            assert link.endswith(f":{port}")
            assert "score 12 chunks" in read_page(f"{link}/jobs/")
            commits.close()
            assert process.wait(300) == 0, (site.folder / "output").read_text()
        assert luigid.find_task("ScoreBatch")["status"] == "DONE"
    assert list((site.folder / "artifacts" / "reports" / "2026-02-10").glob("*.html"))
    lines = (site.folder / "output").read_text("utf-8").splitlines()
    noise = ("WARN", "log4j", "SLF4J", "spark: ", "Spark's default", "incubator", "FutureWarning", "Stage 0:")
    assert [line for line in lines if any(word in line for word in noise)] == []


def test_a_sqlite_file_is_refused_for_a_cluster_in_one_line(site: Site) -> None:
    site.settings("spark")
    done = luigi_cold(site.folder, "ScoreBatch", "--date", "2026-02-08")
    assert done.code != 0
    assert "[database] url: a SQLite file cannot be written by several machines" in done.last_line
    assert "Traceback" not in done.output


def test_local_spark_scores_into_a_sqlite_file(site: Site) -> None:
    site.settings("spark", {"spark": {"master": "local[2]"}})
    done = luigi_cold(site.folder, "ScoreBatch", "--date", "2026-02-08")
    assert done.code == 0, done.output
    assert "is published: 437 scored, 4 rejected" in done.last_line


class ScriptedJob:
    """Ends when the list says so; also the ledger, which shows one committed chunk."""

    def __init__(self, ended: list[bool]) -> None:
        self.ended, self.committed = iter(ended), iter([CommittedMessages(0, 0), CommittedMessages(40, 0)])

    def wait(self, _: float) -> bool:
        return next(self.ended)

    def read_new(self) -> CommittedMessages:
        return next(self.committed, CommittedMessages(0, 0))


@pytest.mark.parametrize(("ends_in_pause", "is_stalled"), [(True, False), (False, True)])
def test_a_pause_longer_than_the_timeout_is_no_stall(
    monkeypatch: pytest.MonkeyPatch, ends_in_pause: bool, is_stalled: bool
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tasks.scoring.spark.engine.time.monotonic", lambda: clock[0])
    engine: Any = SparkEngine.__new__(SparkEngine)
    engine._settings = SparkSettings(timeout=600)
    engine._connection = SimpleNamespace(context=SimpleNamespace(uiWebUrl="http://spark"))
    job = ScriptedJob([False, False, ends_in_pause])
    reports = engine._watch(job, job)
    # The report before the first chunk, too, lets the task be paused.
    assert [next(reports).messages, next(reports).messages] == [0, 40]
    clock[0] += 3600.0  # the report blocked in a pause, which cancels the job
    with pytest.raises(ClusterError, match="no chunk was committed for 600 s") if is_stalled else nullcontext():
        assert [report.messages for report in reports] == [0]


@given(chunks=st.integers(0, 400), executors=st.integers(1, 20))
def test_parts_have_every_chunk_once_and_are_small_at_the_end(chunks: int, executors: int) -> None:
    parts = split_evenly(range(chunks), executors)
    assert [number for part in parts for number in part] == list(range(chunks))
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size == 1 for size in sizes[-executors:])
