"""Tests that compressed files are read whole or refused, whatever their names."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import tracemalloc
from pathlib import Path

import file_formats
import pytest
from file_formats import COMPRESSIONS, SUFFIXES

from models.errors import InputError
from tasks.sources import compression
from tasks.sources.compression import open_bytes
from tasks.sources.file_source import FileSource
from tasks.sources.files import estimate_row_count, read_file

COLUMNS = {"id_column": "id", "text_column": "text"}
ROWS = [{"id": str(number), "text": f"text {number}"} for number in range(1, 6)]
CSV = file_formats.to_csv(ROWS).encode()
NAMES = list(COMPRESSIONS)


def write(path: Path, content: bytes) -> FileSource:
    path.write_bytes(content)
    return FileSource("messages", path, COLUMNS)


def read(path: Path, content: bytes) -> list[dict[str, str | None]]:
    rows = list(read_file(write(path, content)))
    assert [row.fault for row in rows] == [None] * len(rows)
    return [row.values for row in rows]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file_name", ["m.csv", "m.csv{suffix}", "M.CSV{SUFFIX}"])
def test_a_compressed_file_is_read_under_any_name(tmp_path: Path, name: str, file_name: str) -> None:
    path = tmp_path / file_name.format(suffix=SUFFIXES[name], SUFFIX=SUFFIXES[name].upper())
    assert read(path, COMPRESSIONS[name](CSV)) == ROWS


@pytest.mark.parametrize(("name", "suffix"), list(itertools.permutations(SUFFIXES, 2)))
def test_the_content_decides_the_compression_not_the_suffix(tmp_path: Path, name: str, suffix: str) -> None:
    assert read(tmp_path / f"m.csv{SUFFIXES[suffix]}", COMPRESSIONS[name](CSV)) == ROWS


def test_a_file_that_is_not_compressed_is_read_under_the_suffix_of_a_compressed_one(tmp_path: Path) -> None:
    assert read(tmp_path / "m.csv.gz", CSV) == ROWS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [1, 7, 2**16])
def test_several_streams_are_read_as_one_file(
    tmp_path: Path, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "BLOCK", block)
    compress = COMPRESSIONS[name]
    content = b"".join(compress(CSV[start : start + 10]) for start in range(0, len(CSV), 10)) + compress(b"")
    assert read(tmp_path / "m.csv", content) == ROWS


@pytest.mark.parametrize("name", ["gzip", "xz"])
def test_zeros_after_a_stream_are_padding(tmp_path: Path, name: str) -> None:
    content = COMPRESSIONS[name](CSV[:20]) + b"\0" * 100_000 + COMPRESSIONS[name](CSV[20:]) + b"\0" * 512
    assert read(tmp_path / "m.csv", content) == ROWS


def test_a_zstd_file_that_begins_with_a_skippable_frame_is_read(tmp_path: Path) -> None:
    frame = b"\x5a\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"any"
    assert read(tmp_path / "m.csv", frame + COMPRESSIONS["zstd"](CSV) + frame) == ROWS


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path, name: str) -> None:
    content = COMPRESSIONS[name](CSV) + COMPRESSIONS[name](CSV.partition(b"\n")[2])
    first = len(COMPRESSIONS[name](CSV))
    for length in set(range(10, len(content))) - {first}:
        with pytest.raises(InputError, match=rf"m\.csv: the {name} file is truncated: it ends within"):
            list(read_file(write(tmp_path / "m.csv", content[:length])))


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_byte_after_many_rows_is_refused(tmp_path: Path, name: str) -> None:
    numbers = random.Random(1)
    lines = [f"{number},{numbers.getrandbits(64)}" for number in range(80_000)]
    content = bytearray(COMPRESSIONS[name](("id,text\n" + "\n".join(lines)).encode()))
    content[len(content) * 9 // 10] ^= 255
    rows = read_file(write(tmp_path / "m.csv", bytes(content)))
    with pytest.raises(InputError, match=rf"m\.csv: the {name} file is (damaged|truncated): .* Provide the file again"):
        list(rows)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_after_the_last_stream_are_not_ignored(tmp_path: Path, name: str) -> None:
    content = COMPRESSIONS[name](CSV) + b"no stream of its own"
    with pytest.raises(InputError, match=rf"the {name} file is damaged: .* \(stream 2 of the file\)"):
        list(read_file(write(tmp_path / "m.csv", content)))


def test_an_xz_file_that_asks_for_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_XZ_MEMORY", 2**20)
    with pytest.raises(InputError, match="the xz file is damaged: Memory usage limit exceeded"):
        read_file(write(tmp_path / "m.csv", COMPRESSIONS["xz"](CSV)))


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_decompressed_file(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "m.csv", COMPRESSIONS[name](b"0" * 2**26))
    tracemalloc.start()
    try:
        with open_bytes(source) as file:
            assert sum(len(block) for block in iter(lambda: file.read(2**16), b"")) == 2**26
        assert tracemalloc.get_traced_memory()[1] < 2**24  # xz keeps a dictionary of 8 MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_of_a_compressed_file_are_not_estimated(tmp_path: Path, name: str) -> None:
    assert estimate_row_count(write(tmp_path / "m.csv", COMPRESSIONS[name](CSV)).path) is None
    assert estimate_row_count(write(tmp_path / "m.csv.gz", CSV).path) == 6


def test_the_start_of_a_csv_file_is_not_taken_for_bzip2(tmp_path: Path) -> None:
    source = FileSource("messages", tmp_path / "m.csv", {"text_column": "BZh9"})
    source.path.write_text("BZh9\na\n")
    assert [row.values for row in read_file(source)] == [{"BZh9": "a"}]


def test_a_gzip_file_with_a_name_and_a_comment_in_its_header_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile("inbox.csv", "wb", fileobj=buffer) as file:
        file.write(CSV)
    assert read(tmp_path / "m.csv.gz", buffer.getvalue()) == ROWS
