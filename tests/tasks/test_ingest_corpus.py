"""IngestCorpus: every row of the source is in the corpus, and changed content gives another corpus."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import luigi
import pyarrow.parquet as pq
import pytest
from luigi.task_register import Register

from models.errors import ArtifactError, InputError, SettingsError
from tasks import ingest_corpus
from tasks.artifacts.fingerprint import file_sha256
from tasks.database.labels import MessageLabel, change_labels
from tasks.database.schema import open_database
from tasks.ingest_corpus import CorpusCounts, IngestCorpus, hash_source
from tasks.settings.inputs import CorpusSettings
from tasks.settings.storage import DatabaseSettings
from tasks.sources.samples import bundled_file

PROJECT = Path(__file__).resolve().parents[2]
Configure = Callable[..., None]


@pytest.fixture
def configure(set_settings: Configure) -> Configure:
    """Sets values of [corpus] for one test, in its own working folder."""
    set_settings("corpus", source="bundled")
    return functools.partial(set_settings, "corpus")


def build_task(task: luigi.Task) -> Any:
    return luigi.build([task], local_scheduler=True, workers=1, detailed_summary=True, log_level="WARNING").status


def read_rows(task: IngestCorpus) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(task.output().file("corpus.parquet")).to_pylist()
    return rows


def test_the_bundled_corpus_needs_no_setting(configure: Configure) -> None:
    task = IngestCorpus()
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    manifest = task.output().manifest()
    assert set(manifest["labels"]) == {"ham", "spam"}
    assert manifest["rows"] == sum(manifest["labels"].values()) == len(read_rows(task))
    assert manifest["faults"] == {}
    assert manifest["source"] == "bundled"
    assert manifest["source_sha256"] == hashlib.sha256(bundled_file("corpus.csv").read_bytes()).hexdigest()
    assert manifest["sha256"] == hashlib.sha256(task.output().file("corpus.parquet").read_bytes()).hexdigest()


def test_columns_set_for_a_file_do_not_break_the_bundled_corpus(configure: Configure) -> None:
    configure(text_column="body", label_column="class", encoding="cp1252", format="tsv")
    assert build_task(IngestCorpus()) == luigi.LuigiStatusCode.SUCCESS


def test_every_row_of_a_file_is_kept_with_its_fault(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("kind,body\n1,WIN\n0,Hello\n0,Hello\n,no label\n1,a,b\n0\n")
    configure(source="file", path="c.csv", label_column="kind", text_column="body")
    task = IngestCorpus()
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    fault = 'wrong number of fields: expected 2, received {}; put texts with a {} in quotes (") (line {})'
    assert [tuple(row.values()) for row in read_rows(task)] == [
        (1, "1", "WIN", None, False),
        (2, "0", "Hello", None, False),
        (3, "0", "Hello", None, False),
        (4, "", "no label", None, False),
        (5, "1", "a", fault.format(3, "comma", 6), False),
        (6, "0", None, fault.format(1, "line break", 7), False),
    ]
    manifest = task.output().manifest()
    assert manifest["labels"] == {"0": 2, "1": 1, "": 1}
    assert manifest["faults"] == {"wrong number of fields": 2}


def test_changed_file_content_is_another_corpus(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("label,text\nham,Hello\n")
    configure(source="file", path="c.csv")
    first = IngestCorpus().output().path
    path.write_text("label,text\nham,Hallo!\n")
    second = IngestCorpus().output().path
    path.rename(tmp_path / "d.csv")
    assert hash_source(CorpusSettings(source="file", path="c.csv")) == "absent"
    configure(path="d.csv")
    assert first != second
    assert IngestCorpus().output().path == second


def test_a_missing_file_is_missing_data(configure: Configure) -> None:
    configure(source="file", path="nowhere.csv")
    assert build_task(IngestCorpus()) == luigi.LuigiStatusCode.MISSING_EXT


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"source": "file"}, r"\[corpus\] path is empty"),
        ({"source": "sql"}, r"\[corpus\] query is empty"),
        ({"spam_label": ""}, r"\[corpus\] spam_label = : expected values of the label column"),
        ({"spam_label": "spam, "}, r"\[corpus\] spam_label = spam,.*received an empty value"),
        ({"ham_label": ",ham"}, r"\[corpus\] ham_label = ,ham: .*received an empty value"),
        ({"ham_label": "ham, Spam"}, r"spam_label and ham_label both have the value 'spam'"),
    ],
)
def test_an_incomplete_source_is_refused_before_any_work(
    configure: Configure, values: dict[str, str], expected: str
) -> None:
    configure(**values)
    with pytest.raises(SettingsError, match=expected):
        IngestCorpus()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.csv", "label,text\n", "received no row"),
        ("c.csv", "", "received an empty file"),
        ("c.csv", "label,message\nham,Hello\n", "text_column = text: no such column"),
        ("c.xlsx", "PK", "unknown format"),
    ],
)
def test_an_invalid_file_leaves_no_corpus(
    configure: Configure, tmp_path: Path, name: str, content: str, expected: str
) -> None:
    (tmp_path / name).write_text(content)
    configure(source="file", path=name)
    task = IngestCorpus()
    with pytest.raises(InputError, match=expected):
        task.run()
    assert build_task(task) == luigi.LuigiStatusCode.FAILED
    assert not task.complete()


def test_a_query_runs_again_only_for_a_new_edition(configure: Configure, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.execute("CREATE TABLE m (label TEXT, text TEXT)")
        connection.executemany("INSERT INTO m VALUES (?, ?)", [("ham", "Hello"), ("spam", None)])
    connection.close()
    configure(source="sql", url="sqlite:///c.db", query="SELECT label, text FROM m ORDER BY rowid")
    task = IngestCorpus()
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    assert [tuple(row.values()) for row in read_rows(task)] == [
        (1, "ham", "Hello", None, False), (2, "spam", None, None, False),
    ]  # fmt: skip
    assert task.output().manifest()["source_sha256"] is None
    configure(url="sqlite:///elsewhere.db")
    assert IngestCorpus().complete()
    configure(edition="2")
    assert not IngestCorpus().complete()


def test_the_collection_is_downloaded_to_the_downloads_folder(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fetch(url: str, folder: Path, timeout_seconds: float, show_progress: bool) -> Path:
        calls.append((url, folder, timeout_seconds, show_progress))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "SMSSpamCollection").write_text('ham\t"Hi\nspam\tWIN\n')
        return folder / "SMSSpamCollection"

    monkeypatch.setattr(ingest_corpus, "fetch_sms_spam_collection", fetch)
    configure(source="sms_spam_collection", download_url="http://127.0.0.1:9/x.zip", download_timeout="7")
    task = IngestCorpus()
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    assert calls == [("http://127.0.0.1:9/x.zip", Path("artifacts/downloads"), 7, True)]
    assert [row["text"] for row in read_rows(task)] == ['"Hi', "WIN"]


def test_every_row_of_the_published_collection_is_read(configure: Configure) -> None:
    folder = Path(os.environ.get("SPAMSCORE_TEST_DATA", PROJECT.parent / "shared" / "data"))
    path = folder / "SMSSpamCollection"
    if not path.is_file():
        pytest.skip(f"{path} is not there: set SPAMSCORE_TEST_DATA to the folder that holds SMSSpamCollection")
    configure(source="file", path=str(path))
    task = IngestCorpus()
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    manifest = task.output().manifest()
    assert (manifest["rows"], manifest["labels"], manifest["faults"]) == (5574, {"ham": 4827, "spam": 747}, {})
    assert manifest["source_sha256"] == hash_source(CorpusSettings(source="sms_spam_collection"))


def test_the_number_of_counted_label_values_is_bounded() -> None:
    counts = CorpusCounts()
    rows = [(number, str(number), "text", None) for number in range(10_000)]
    assert list(counts.count(rows)) == rows
    assert len(counts.labels) == ingest_corpus.MAX_LABEL_VALUES + 1
    assert counts.labels["(others)"] == 10_000 - ingest_corpus.MAX_LABEL_VALUES


def test_a_missing_sample_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"pipeline/sample/other\.csv"):
        bundled_file("other.csv")


def test_checking_completeness_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys, datetime, json, warnings; warnings.simplefilter('ignore');"
        "from tasks.ingest_corpus import IngestCorpus; from tasks.extract_messages import ExtractMessages;"
        "assert not IngestCorpus().complete();"
        "assert not ExtractMessages(date=datetime.date(2026, 1, 31)).complete();"
        "heavy = {'pandas', 'pyarrow', 'sqlalchemy', 'tensorflow', 'numpy', 'rich'};"
        "print(json.dumps(sorted(heavy & sys.modules.keys())))"
    )
    run = [sys.executable, "-c", program]
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(found.stdout) == []


def test_a_file_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    for content in ("one", "two, longer"):
        path.write_text(content)
        assert file_sha256(path) == hashlib.sha256(content.encode()).hexdigest()


LABEL = MessageLabel(date(2026, 1, 31), "m-1", "ann", "spam", datetime(2026, 2, 1, tzinfo=UTC), "WIN now")


def add_labels(*labels: MessageLabel) -> None:
    engine = open_database(DatabaseSettings())
    change_labels(engine, labels)
    engine.dispose()
    Register.clear_instance_cache()  # as a new process would


def test_people_s_labels_follow_the_rows_of_the_source_with_feedback_join(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("label,text\nham,Hello\n")
    configure(source="file", path="c.csv", feedback="join", spam_label="junk")
    add_labels(LABEL, dataclasses.replace(LABEL, message_id="m-2", label="ham", text="Lunch?"))
    task = IngestCorpus()
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    assert [tuple(row.values()) for row in read_rows(task)] == [
        (1, "ham", "Hello", None, False), (2, "ham", "Lunch?", None, True), (3, "spam", "WIN now", None, True),
    ]  # fmt: skip
    assert (task.output().manifest()["rows"], task.output().manifest()["feedback"]) == (1, 2)
    configure(feedback="none")
    assert build_task(IngestCorpus()) == luigi.LuigiStatusCode.SUCCESS
    assert [row["feedback"] for row in read_rows(IngestCorpus())] == [False]


@pytest.mark.parametrize(
    ("change", "is_new_corpus"),
    [
        ({"label": "ham"}, True),
        ({"text": "WIN"}, True),
        ({"message_id": "m-2", "text": "new"}, True),  # an additional label
        ({"message_id": "m-2"}, False),  # the same label for a copy of the message
        ({"labelled_at": LABEL.labelled_at + timedelta(days=1)}, False),  # the same label again
        ({"labelled_by": "bob"}, False),  # by another person
        ({"labelled_by": "bob", "label": "ham", "labelled_at": LABEL.labelled_at - timedelta(days=1)}, False),
        ({"labelled_by": "bob", "label": "ham", "labelled_at": LABEL.labelled_at + timedelta(days=1)}, True),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_changed_label_is_another_corpus_and_a_repeated_one_is_not(
    configure: Configure, change: dict[str, Any], is_new_corpus: bool
) -> None:
    configure(feedback="join")
    add_labels(LABEL)
    before = IngestCorpus().output().path
    add_labels(dataclasses.replace(LABEL, **change))
    assert (IngestCorpus().output().path != before) == is_new_corpus
    configure(feedback="none")
    without = IngestCorpus().output().path
    add_labels(dataclasses.replace(LABEL, message_id="m-3"))
    assert IngestCorpus().output().path == without != before


def test_a_label_given_during_a_run_counts_for_the_next(configure: Configure) -> None:
    configure(feedback="join")
    add_labels(LABEL)
    task = IngestCorpus()
    before = task.output().path
    engine = open_database(DatabaseSettings())
    change_labels(engine, [dataclasses.replace(LABEL, message_id="m-2", text="new")])
    engine.dispose()
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    assert task.output().path == before
    assert [row["text"] for row in read_rows(task) if row["feedback"]] == ["WIN now"]
    Register.clear_instance_cache()
    assert not IngestCorpus().complete()


def test_without_a_database_there_are_no_labels_and_none_is_created(configure: Configure, tmp_path: Path) -> None:
    configure(feedback="join")
    assert build_task(IngestCorpus()) == luigi.LuigiStatusCode.SUCCESS
    assert IngestCorpus().output().manifest()["feedback"] == 0
    assert not list(tmp_path.glob("*.db"))
