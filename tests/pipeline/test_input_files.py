"""Real runs on files as other programs write them: compressed, in UTF-16, as JSON arrays, as backups, and empty."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import file_formats
import pyarrow.parquet as pq
import pytest
from chain import DATE, SMALL, CommandResult, luigi, merge_settings, query, write_settings
from file_formats import COMPRESSIONS, mark

from models.errors import InputError
from tasks.ingest_corpus import CORPUS, IngestCorpus

MESSAGES = [{"message_id": "n1", "text": "WIN £1000 now 😀"}, {"message_id": "n2", "text": "see you at six"}]
LABELLED = [{"label": "spam", "text": "WIN £1000 now 😀"}, {"label": "ham", "text": "see you at six"}]
Rows = file_formats.Rows


@dataclass(frozen=True)
class InputFile:
    """A file of rows, and the settings that it needs besides its path."""

    name: str
    write: Callable[[Rows], bytes]
    settings: tuple[tuple[str, str], ...] = ()


def encode(write: Callable[[Rows], str]) -> Callable[[Rows], bytes]:
    return lambda rows: write(rows).encode()


def compress(compression: str, write: Callable[[Rows], str]) -> Callable[[Rows], bytes]:
    return lambda rows: COMPRESSIONS[compression](write(rows).encode())


READ = {
    "a JSON array as .jsonl": InputFile("inbox.jsonl", encode(file_formats.to_json)),
    "a pretty-printed array": InputFile("inbox.json", encode(file_formats.to_pretty_json), (("format", "json"),)),
    "gzip by its content": InputFile("inbox.jsonl", compress("gzip", file_formats.to_json_lines)),
    "gzip by its name": InputFile("inbox.csv.gz", compress("gzip", file_formats.to_csv)),
    "bzip2": InputFile("inbox.tsv.bz2", compress("bzip2", file_formats.to_tsv)),
    "xz": InputFile("inbox.json.xz", compress("xz", file_formats.to_json)),
    "zstd": InputFile("inbox.ndjson.zst", compress("zstd", file_formats.to_json_lines)),
    "UTF-16 with a mark": InputFile("inbox.csv", lambda rows: mark(file_formats.to_csv(rows), "utf-16-le")),
    "UTF-16 with another encoding set": InputFile(
        "inbox.csv", lambda rows: mark(file_formats.to_csv(rows), "utf-16-be"), (("encoding", "cp1252"),)
    ),
}


@pytest.fixture(scope="module")
def scoring_folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("files"), dirs_exist_ok=True))


def score(folder: Path, file: InputFile, content: bytes) -> CommandResult:
    """Scores the messages of a file in a folder without batches."""
    for path in (*folder.glob("spamscore.db*"), *folder.glob("inbox*")):
        path.unlink()
    for name in ("snapshots", "receipts"):
        shutil.rmtree(folder / "artifacts" / name, ignore_errors=True)
    (folder / file.name).write_bytes(content)
    messages = {"source": "file", "path": file.name, **dict(file.settings)}
    write_settings(folder, merge_settings(SMALL, {"messages": messages}))
    return luigi(folder, "ScoreBatch", "--date", DATE)


# The other kinds differ from these only below `read_file`.
SCORED = ("a JSON array as .jsonl", "gzip by its content", "gzip by its name", "zstd", "UTF-16 with a mark")


@pytest.mark.parametrize("kind", SCORED)
def test_every_message_of_the_file_is_scored(scoring_folder: Path, kind: str) -> None:
    file = READ[kind]
    done = score(scoring_folder, file, file.write(MESSAGES))
    assert done.code == 0, done.output
    assert "2 scored, 0 rejected" in done.last_line
    assert sorted(query(scoring_folder, "select message_id from published_scores")) == [("n1",), ("n2",)]


def test_every_message_of_a_backup_of_a_phone_is_scored(scoring_folder: Path) -> None:
    rows = [{"address": f"+{number}", "body": row["text"]} for number, row in enumerate(MESSAGES)]
    settings = (("text_column", "body"), ("id_column", "address"))
    file = InputFile("inbox.xml", encode(file_formats.to_sms_backup), settings)
    done = score(scoring_folder, file, file.write(rows))
    assert done.code == 0, done.output
    assert "2 scored, 0 rejected" in done.last_line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("inbox.jsonl", b""),
        ("inbox.json.gz", COMPRESSIONS["gzip"](b"[]")),
    ],
)
def test_a_file_without_messages_is_an_empty_night_with_a_warning(
    scoring_folder: Path, name: str, content: bytes
) -> None:
    done = score(scoring_folder, InputFile(name, lambda _: content), content)
    assert done.code == 0, done.output
    assert f"WARNING: {name}: no message of {DATE}. The batch will be empty." in done.output
    assert query(scoring_folder, "select count(*) from published_scores") == [(0,)]


JSON_LINES = file_formats.to_json_lines(MESSAGES).encode()
REFUSED = {
    "a truncated gzip file": ("inbox.jsonl", COMPRESSIONS["gzip"](JSON_LINES)[:-9], "gzip file is truncated"),
    "a truncated array": ("inbox.json", file_formats.to_json(MESSAGES).encode()[:-9], "row 2, line 1: the file ends"),
    "a web page": ("inbox.csv", b"<!doctype html><p>Log in", "the file is a web page (HTML)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_read_publishes_nothing(scoring_folder: Path, kind: str) -> None:
    name, content, expected = REFUSED[kind]
    done = score(scoring_folder, InputFile(name, lambda _: content), content)
    assert done.code == 30, done.output
    assert f"ExtractMessages(date={DATE}) failed: [messages] path = {name}: " in done.last_line
    assert expected in done.last_line
    assert not list(scoring_folder.glob("artifacts/snapshots/*/*/manifest.json"))


@pytest.mark.parametrize("kind", READ)
def test_every_row_of_the_corpus_is_read(kind: str, tmp_path: Path, set_settings: Callable[..., None]) -> None:
    file = READ[kind]
    (tmp_path / file.name).write_bytes(file.write(LABELLED))
    set_settings("corpus", source="file", path=file.name, **dict(file.settings))
    task = IngestCorpus()
    task.run()
    assert pq.read_table(task.output().file(CORPUS)).select(["label", "text", "fault"]).to_pylist() == [
        {**row, "fault": None} for row in LABELLED
    ]


def test_an_empty_corpus_is_refused(tmp_path: Path, set_settings: Callable[..., None]) -> None:
    (tmp_path / "corpus.jsonl").write_bytes(b"")
    set_settings("corpus", source="file", path="corpus.jsonl")
    with pytest.raises(InputError, match=r"path = corpus\.jsonl: expected labelled messages, received no row"):
        IngestCorpus().run()
