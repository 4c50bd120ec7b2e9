"""Real runs on messages and labelled messages at s3:// addresses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import file_formats
import pyarrow.parquet as pq
import pytest
from chain import DATE, CommandResult, luigi, write_settings
from file_formats import COMPRESSIONS
from object_store import ObjectStore

MESSAGES = [{"message_id": f"n{number}", "text": f"WIN £{number} now 😀"} for number in range(50)]
LABELLED = [{"label": ("spam", "ham")[number % 2], "text": f"text {number} é"} for number in range(50)]

# Each format, and each compression once.
FORMATS: dict[str, Callable[[file_formats.Rows], bytes]] = {
    "in.csv": lambda rows: file_formats.to_csv(rows).encode(),
    "in.csv.gz": lambda rows: COMPRESSIONS["gzip"](file_formats.to_csv(rows).encode()),
    "in.tsv.bz2": lambda rows: COMPRESSIONS["bzip2"](file_formats.to_tsv(rows).encode()),
    "in.jsonl": lambda rows: file_formats.to_json_lines(rows).encode(),
    "in.json.xz": lambda rows: COMPRESSIONS["xz"](file_formats.to_json(rows).encode()),
    "in.jsonl.zst": lambda rows: COMPRESSIONS["zstd"](file_formats.to_json_lines(rows).encode()),
    "in.parquet": file_formats.to_parquet,
}


def extract(folder: Path, store: ObjectStore, path: str, **variables: str) -> CommandResult:
    write_settings(folder, {"messages": {"source": "file", "path": path}})
    done = luigi(folder, "ExtractMessages", "--date", DATE, **{**store.environment, **variables})
    secret = store.environment["AWS_SECRET_ACCESS_KEY"]
    written = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert secret not in done.output
    assert secret.encode() not in written
    return done


def read_rows(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the rows and the manifest of the only snapshot."""
    (snapshot,) = (folder / "artifacts" / "snapshots" / DATE).iterdir()
    return pq.read_table(snapshot / "messages.parquet").to_pylist(), json.loads(
        (snapshot / "manifest.json").read_text()
    )


@pytest.mark.parametrize("name", FORMATS)
def test_a_snapshot_of_an_object_has_the_rows_of_the_file(s3: ObjectStore, tmp_path: Path, name: str) -> None:
    content = FORMATS[name](MESSAGES)
    s3.put(f"s3://bucket/formats/{DATE}/{name}", content)
    path = f"s3://bucket/formats/{{date}}/{name}"
    done = extract(tmp_path, s3, path)
    assert done.code == 0, done.output
    rows, manifest = read_rows(tmp_path)
    assert [(row["message_id"], row["text"]) for row in rows] == [tuple(row.values()) for row in MESSAGES]
    (file,) = manifest["source_files"]
    assert file["path"] == f"s3://bucket/formats/{DATE}/{name}"
    assert file["bytes"] == len(content)
    assert len(file["etag"]) == 32
    assert file["mtime_ns"] > 0
    assert not list(tmp_path.rglob(name))


def test_a_change_after_the_snapshot_is_told(s3: ObjectStore, tmp_path: Path) -> None:
    s3.put("s3://bucket/later.csv", FORMATS["in.csv"](MESSAGES))
    assert extract(tmp_path, s3, "s3://bucket/later.csv").code == 0
    s3.put("s3://bucket/later.csv", FORMATS["in.csv"](MESSAGES[1:]))
    again = extract(tmp_path, s3, "s3://bucket/later.csv")
    assert again.code == 0
    assert "s3://bucket/later.csv was modified after it was read (20" in again.output


def test_objects_of_a_pattern_are_one_source(s3: ObjectStore, tmp_path: Path) -> None:
    s3.put(f"s3://bucket/parts/{DATE}-b.csv", FORMATS["in.csv"](MESSAGES[20:]))
    s3.put(f"s3://bucket/parts/{DATE}-a.jsonl", FORMATS["in.jsonl"](MESSAGES[:20]))
    done = extract(tmp_path, s3, "s3://bucket/parts/{date}-*")
    assert done.code == 0, done.output
    rows, manifest = read_rows(tmp_path)
    assert [row["message_id"] for row in rows] == [row["message_id"] for row in MESSAGES]
    assert len(manifest["source_files"]) == 2


@pytest.mark.parametrize("name", ["in.csv.gz", "in.parquet"])
def test_a_corpus_is_read_once_for_each_version(s3: ObjectStore, tmp_path: Path, name: str) -> None:
    address = f"s3://bucket/corpus/{name}"
    write_settings(tmp_path, {"corpus": {"source": "file", "path": address}})
    for rows, is_new in ((LABELLED, True), (LABELLED, False), (LABELLED[2:], True)):
        s3.put(address, FORMATS[name](rows))
        before = set(tmp_path.glob("artifacts/corpus/*/corpus.parquet"))
        s3.heal()
        done = luigi(tmp_path, "IngestCorpus", **s3.environment)
        assert done.code == 0, done.output
        assert any(request["range"] for request in s3.heal()) is is_new
        for corpus in (added := set(tmp_path.glob("artifacts/corpus/*/corpus.parquet")) - before):
            read = [(row["label"], row["text"]) for row in pq.read_table(corpus).to_pylist()]
            assert read == [tuple(row.values()) for row in rows]
        assert len(added) == is_new


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("s3://no-bucket/in.csv", 20, "no such bucket. Create it or correct the setting, and run again."),
        ("s3://no-bucket/*.csv", 20, "no such bucket. Create it or correct the setting, and run again."),
        ("s3://bucket/nothing.csv", 20, "no such object. Provide it or correct the setting, and run again."),
        ("s3://bucket/nothing-*.csv", 20, "no object matches. Provide the objects or correct the setting"),
        (
            "s3://bucket/faults",
            20,
            "expected a file, received the folder s3://bucket/faults. Name the files",
        ),
        ("s3://bucket/faults/denied.csv", 30, "no permission (Access Denied)."),
        ("s3://bucket/faults/cut.csv", 30, "the storage does not answer, or the connection broke"),
        ("s3://bucket/faults/changed.csv", 30, "the object changed while it was read."),
        ("s3://bucket/faults/cut.csv.gz", 30, "the gzip file is truncated"),
        ("gs://bucket/in.csv", 35, "gs:// needs the package gcsfs, which cannot be imported. pip install"),
    ],
)
def test_a_fault_ends_the_run_with_one_line(s3: ObjectStore, tmp_path: Path, path: str, code: int, reason: str) -> None:
    for name in ("denied", "cut", "changed"):
        s3.put(f"s3://bucket/faults/{name}.csv", FORMATS["in.csv"](MESSAGES))
    s3.put("s3://bucket/faults/cut.csv.gz", FORMATS["in.csv.gz"](MESSAGES)[:-20])
    s3.fail("deny", "denied.csv")
    s3.fail("cut", "cut.csv", after=1) if path.endswith("cut.csv") else None
    s3.fail("replace", "changed.csv", after=2, content="message_id,text\n1,another\n")
    done = extract(tmp_path, s3, path)
    assert done.code == code, done.output
    assert f"[messages] path = {path}: {reason}" in done.last_line
    assert "Traceback" not in done.output
    assert not list(tmp_path.glob("artifacts/snapshots/*/*/manifest.json"))


def test_an_endpoint_that_does_not_answer_ends_the_run(s3: ObjectStore, tmp_path: Path) -> None:
    done = extract(tmp_path, s3, "s3://bucket/in.csv", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert done.code == 35
    assert "[messages] path = s3://bucket/in.csv: the storage does not answer" in done.last_line
    assert "AWS_ENDPOINT_URL" in done.last_line
