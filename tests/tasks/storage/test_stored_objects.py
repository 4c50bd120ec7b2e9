"""Objects on an S3 server are read like local files: patterns, ranges, bounded memory, versions."""

from __future__ import annotations

import io
import random
import re
import tracemalloc
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from object_store import ObjectStore

from models.errors import InputError
from tasks.sources.file_source import FileSource
from tasks.sources.files import estimate_row_count, read_file
from tasks.sources.paths import find_files, hash_files
from tasks.storage import stored_objects
from tasks.storage.addresses import OPTIONS
from tasks.storage.stored_objects import STREAM_BLOCK, StoredObject, locate

SETTING = "[messages] path"
COLUMNS = {"id_column": "message_id", "text_column": "text"}


def stored(address: str) -> StoredObject:
    located = locate(address, SETTING)
    assert isinstance(located, StoredObject)
    return located


def test_a_path_of_this_machine_stays_one() -> None:
    assert locate("in/a.csv", SETTING) == Path("in/a.csv")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["a.csv", "b.csv", "c10.csv", "c9.csv"]),
        ("c?.csv", ["c9.csv"]),
        ("[ab].csv", ["a.csv", "b.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "c10.csv", "c9.csv", "deep/down/a.csv", "odd/[a].csv", "odd/a.csv"]),
        ("a.csv", ["a.csv"]),
        ("odd/[a].csv", ["odd/[a].csv"]),
        ("*.tsv", []),
        ("nowhere.csv", []),
        ("deep", ["deep"]),
    ],
)
def test_a_pattern_matches_what_it_matches_in_a_folder(
    s3: ObjectStore, tmp_path: Path, pattern: str, names: list[str]
) -> None:
    files = [
        "b.csv",
        "c9.csv",
        "a.csv",
        "c10.csv",
        ".hidden.csv",
        "x.txt",
        "deep/down/a.csv",
        "odd/[a].csv",
        "odd/a.csv",
    ]
    for name in files:
        s3.put(f"s3://bucket/match/{name}", b"x")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [str(path) for path in find_files(stored(f"s3://bucket/match/{pattern}"))] == [
        f"s3://bucket/match/{name}" for name in names
    ]
    assert [str(path) for path in find_files(tmp_path / pattern)] == [f"{tmp_path}/{name}" for name in names]


def test_the_hash_is_that_of_the_versions_and_reads_nothing(s3: ObjectStore) -> None:
    s3.put("s3://bucket/hash/a.csv", b"one")
    s3.put("s3://bucket/hash/b.csv", b"two")
    alone, both = hash_files(stored("s3://bucket/hash/a.csv")), hash_files(stored("s3://bucket/hash/*"))
    assert len({alone, both, hash_files(stored("s3://bucket/hash/b.csv"))}) == 3
    assert "GET" not in {request["method"] for request in s3.heal() if request["path"].endswith(".csv")}
    s3.put("s3://bucket/hash/a.csv", b"six")
    assert hash_files(stored("s3://bucket/hash/a.csv")) != alone
    s3.put("s3://bucket/hash/a.csv", b"one")
    assert hash_files(stored("s3://bucket/hash/*")) == both
    assert hash_files(stored("s3://bucket/hash/x")) == "absent"


def test_a_large_stream_is_read_in_blocks_and_memory_stays_bounded(s3: ObjectStore) -> None:
    rows = 200_000
    content = b"message_id,text\n" + b"".join(b"%d,%s\n" % (number, b"word " * 30) for number in range(rows))
    s3.put("s3://bucket/large.csv", content)
    assert len(content) > 3 * STREAM_BLOCK
    source = FileSource("messages", stored("s3://bucket/large.csv"), COLUMNS)
    sum(1 for _ in read_file(source))  # imports
    s3.heal()
    tracemalloc.start()
    assert sum(1 for _ in read_file(source)) == rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * STREAM_BLOCK < len(content)
    ranges = [tuple(map(int, re.findall(r"\d+", request["range"]))) for request in s3.heal() if request["range"]]
    assert all(last - first < STREAM_BLOCK for first, last in ranges)
    assert max(last for _, last in ranges) == len(content) - 1


def test_parquet_is_read_by_the_ranges_of_its_columns(s3: ObjectStore) -> None:
    noise = random.Random(7)
    rows, unread = 4_000, [noise.randbytes(3_000) for _ in range(4_000)]
    table = pa.table({"message_id": [str(n) for n in range(rows)], "noise": unread, "text": ["hello"] * rows})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2_000)
    s3.put("s3://bucket/large.parquet", buffer.getvalue())
    s3.heal()
    source = FileSource("messages", stored("s3://bucket/large.parquet"), COLUMNS)
    assert estimate_row_count(source.path) == rows
    assert [row.values["message_id"] for row in read_file(source)] == table["message_id"].to_pylist()
    ranges = [tuple(map(int, re.findall(r"\d+", request["range"]))) for request in s3.heal() if request["range"]]
    assert sum(last - first for first, last in ranges) < 8 * 2**20 < len(buffer.getvalue())


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_an_object_that_changes_while_it_is_read_is_an_error(s3: ObjectStore, name: str) -> None:
    content = b"message_id,text\n1,hello\n"
    if name == "m.parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({"message_id": ["1"], "text": ["hello"]}), buffer)
        content = buffer.getvalue()
    s3.put(f"s3://bucket/{name}", content)
    rows = read_file(FileSource("messages", stored(f"s3://bucket/{name}"), COLUMNS))
    assert next(rows).values["text"] == "hello"
    s3.put(f"s3://bucket/{name}", content + b"\n")
    with pytest.raises(InputError, match=rf"path = s3://bucket/{name}: the object changed while it was read"):
        list(rows)


def test_a_block_of_another_version_is_refused(s3: ObjectStore) -> None:
    s3.put("s3://bucket/blocks.csv", b"x" * (2 * STREAM_BLOCK))
    with stored("s3://bucket/blocks.csv").open() as file:
        assert file.read(10) == b"x" * 10
        s3.put("s3://bucket/blocks.csv", b"y" * (2 * STREAM_BLOCK))
        with pytest.raises(InputError, match="the object changed while it was read"):
            file.read()


def test_a_body_that_breaks_off_is_asked_for_again_and_then_an_error(s3: ObjectStore) -> None:
    s3.put("s3://bucket/cut.csv", b"message_id,text\n1,hello\n")
    s3.fail("cut", "cut.csv")
    with stored("s3://bucket/cut.csv").open() as file, pytest.raises(InputError, match="the connection broke"):
        file.read()
    assert [request["method"] for request in s3.heal()] == ["HEAD", "GET", "GET"]
    with stored("s3://bucket/cut.csv").open() as file:
        assert file.read() == b"message_id,text\n1,hello\n"


@given(
    content=st.binary(max_size=300),
    steps=st.lists(st.tuples(st.integers(0, 320), st.integers(0, 2), st.integers(-1, 90)), max_size=12),
    is_random=st.booleans(),
)
def test_any_seeks_and_reads_give_the_bytes_of_a_file(
    content: bytes, steps: list[tuple[int, int, int]], is_random: bool
) -> None:
    MemoryFileSystem.store.clear()
    MemoryFileSystem().pipe_file("/m", content)
    expected, located = io.BytesIO(content), stored("memory://m")
    with (
        mock.patch.multiple(stored_objects, HEAD_BLOCK=7, STREAM_BLOCK=50, BUFFER=5),
        located.open_random() if is_random else located.open() as file,
    ):
        for offset, whence, size in steps:
            offset = -min(offset, len(content)) if whence == io.SEEK_END else offset
            assert file.seek(offset, whence) == expected.seek(offset, whence)
            assert file.read(size) == expected.read(size)


def test_a_server_that_hangs_is_given_up(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**OPTIONS["s3"]["config_kwargs"], "read_timeout": 0.2}
    monkeypatch.setitem(OPTIONS, "s3", {"config_kwargs": options})
    s3.put("s3://bucket/hang.csv", b"x")
    s3.fail("hang", "hang.csv", "HEAD")
    with pytest.raises(InputError, match=r"path = s3://bucket/hang\.csv: the storage does not answer"):
        stored("s3://bucket/hang.csv").open()
    assert len(s3.heal()) <= 4
