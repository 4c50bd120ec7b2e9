"""Rows with replaced characters are counted, warned of and limited, and the encoding that fits the file is named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain import DATE, luigi, write_settings
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from tasks.settings.inputs import MessagesSettings
from tasks.sources.replacements import ReplacedRows, describe_cause
from tasks.sources.rows import SourceRow

Rows = Sequence[tuple[str, str]]
POUNDS = [("a1", "You have WON a £900 prize!"), ("a2", "See you at six"), ("a3", "Get £2000 now"), ("a4", "Milk?")]
ONE_OF_30 = [("a0", "café at 6?"), *((f"b{number}", "see you") for number in range(29))]


def write_delimited(separator: str) -> Callable[[Rows, Path], None]:
    def write(rows: Rows, path: Path) -> None:
        lines = [("message_id", "text"), *rows]
        path.write_bytes(
            "".join(f"{a}{separator}{b}\n" for a, b in lines).replace("£2000, ", "£2000 ").encode("cp1252")
        )

    return write


def write_jsonl(rows: Rows, path: Path) -> None:
    lines = [json.dumps({"message_id": row[0], "text": row[1]}, ensure_ascii=False) for row in rows]
    path.write_bytes("\n".join(lines).encode("cp1252"))


def write_parquet(rows: Rows, path: Path) -> None:
    texts = pa.array([text.encode("cp1252") for _, text in rows])
    pq.write_table(pa.table({"message_id": [row[0] for row in rows], "text": texts}), path)


def write_sqlite(rows: Rows, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE inbox (message_id TEXT, text TEXT)")
        values = [(row[0], row[1].encode("cp1252")) for row in rows]
        connection.executemany("INSERT INTO inbox VALUES (?, CAST(? AS TEXT))", values)
    connection.close()


CP1252 = "not valid utf-8: {count}, first line {line}. They seem to be cp1252, in which it reads '{text}"
PROGRAM = "or values that are not UTF-8. Correct the program that writes it"
DATABASE = "or bytes that are not UTF-8. Correct these values in the database"
# How to write an inbox, its settings, and what the message says about the cause.
SOURCES: dict[str, tuple[Callable[[Rows, Path], None], dict[str, str], str]] = {
    "csv": (write_delimited(","), {"source": "file", "path": "inbox.csv"}, CP1252),
    "tsv": (write_delimited("\t"), {"source": "file", "path": "inbox.tsv"}, CP1252),
    "jsonl": (write_jsonl, {"source": "file", "path": "inbox.jsonl"}, CP1252),
    "parquet": (write_parquet, {"source": "file", "path": "inbox.parquet"}, PROGRAM),
    "sqlite": (
        write_sqlite,
        {"source": "sql", "url": "sqlite:///inbox.sqlite", "query": "SELECT * FROM inbox ORDER BY rowid"},
        DATABASE,
    ),
}


def snapshots(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"artifacts/snapshots/{DATE}/*") if not path.name.endswith(".partial")]


@pytest.mark.parametrize("source", SOURCES)
def test_a_message_with_a_replaced_character_is_kept_with_a_warning_on_the_last_lines(
    tmp_path: Path, source: str
) -> None:
    write, settings, cause = SOURCES[source]
    write(ONE_OF_30, tmp_path / f"inbox.{source}")
    write_settings(tmp_path, {"messages": settings})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code == 0, done.output
    warning = next(line for line in done.output.splitlines() if line.startswith("WARNING: [messages]"))
    assert done.last_line == warning.replace("WARNING", "spamscore")
    assert "1 of 30 rows (3.3%) have characters that could not be read and are U+FFFD" in warning
    assert "first in row 1, column text: 'caf\ufffd at 6?'" in warning
    line, text = (1, '…: "a0", "text": "café at 6?') if source == "jsonl" else (2, "a0,café at 6?")
    assert cause.format(count=1, line=line, text=text.replace(",", "\\t") if source == "tsv" else text) in warning
    assert ("[messages] encoding = cp1252" in warning) == (cause is CP1252)
    (snapshot,) = snapshots(tmp_path)
    assert json.loads((snapshot / "manifest.json").read_text())["replaced"] == 1
    assert pq.read_table(snapshot / "messages.parquet")["text"][0].as_py() == "caf\ufffd at 6?"


@pytest.mark.parametrize("source", SOURCES)
def test_too_many_replaced_characters_fail_the_run_and_nothing_is_kept(tmp_path: Path, source: str) -> None:
    write, settings, cause = SOURCES[source]
    write(POUNDS, tmp_path / f"inbox.{source}")
    write_settings(tmp_path, {"messages": settings})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code == 60, done.output
    assert "2 of 4 rows (50.0%) have characters that could not be read" in done.last_line
    assert "more than [messages] max_replaced_share = 0.05 allows" in done.last_line
    assert "first in row 1, column text: 'You have WON a \ufffd900 prize!'" in done.last_line
    assert done.last_line.endswith("or raise the limit.")
    assert "Traceback" not in done.output
    assert snapshots(tmp_path) == []
    # The way out that the message names.
    key, value = ("encoding", "cp1252") if cause is CP1252 else ("max_replaced_share", "0.5")
    assert key == "max_replaced_share" or f"[messages] {key} = {value}" in done.last_line
    write_settings(tmp_path, {"messages": {**settings, key: value}})
    assert luigi(tmp_path, "ExtractMessages", "--date", DATE).code == 0
    (snapshot,) = snapshots(tmp_path)
    text = pq.read_table(snapshot / "messages.parquet")["text"][0].as_py()
    assert text == ("You have WON a £900 prize!" if cause is CP1252 else "You have WON a \ufffd900 prize!")


# The text of a file, its encoding, and what the message names; [corpus] encoding is utf-8.
LABELLED = "label,text\n" + "".join(f"ham,See you at {number} o'clock\nspam,WIN £{number}\n" for number in range(9))
CORPORA = {
    "cp1252": (
        LABELLED.encode("cp1252"), "cp1252",
        ["9 of 18 rows (50.0%)", "first in row 2, column text: 'WIN \ufffd0'", "first line 3", "reads 'spam,WIN £0'"],
    ),
    "utf-16 without a mark": (LABELLED.encode("utf-16-le"), "utf-16-le", []),
    "utf-16 big-endian": (LABELLED.encode("utf-16-be"), "utf-16-be", []),
}  # fmt: skip


@pytest.mark.parametrize("case", CORPORA)
def test_a_corpus_in_another_encoding_fails_and_is_read_in_the_one_that_the_message_names(
    tmp_path: Path, case: str
) -> None:
    content, encoding, texts = CORPORA[case]
    (tmp_path / "c.csv").write_bytes(content)
    settings = {"source": "file", "path": "c.csv"}
    write_settings(tmp_path, {"corpus": settings})
    done = luigi(tmp_path, "IngestCorpus")
    assert done.code == 30, done.output
    assert [text for text in texts if text not in done.last_line] == []
    assert f"[corpus] encoding = {encoding}" in done.last_line
    assert not [path for path in tmp_path.glob("artifacts/corpus/*") if not path.name.endswith(".partial")]
    write_settings(tmp_path, {"corpus": {**settings, "encoding": encoding}})
    assert luigi(tmp_path, "IngestCorpus").code == 0
    (rows,) = [path for path in tmp_path.glob("artifacts/corpus/*/corpus.parquet") if ".partial" not in str(path)]
    assert pq.read_table(rows)["text"][1].as_py() == "WIN £0"


def test_a_corpus_with_few_replaced_characters_is_used_without_these_rows_and_with_a_warning(tmp_path: Path) -> None:
    rows = b"label,text\n" + b"".join(b"ham,at noon number %d\n" % number for number in range(40)) + b"ham,caf\xe9\n"
    (tmp_path / "c.csv").write_bytes(rows)
    write_settings(tmp_path, {"corpus": {"source": "file", "path": "c.csv"}})
    done = luigi(tmp_path, "IngestCorpus")
    assert done.code == 0, done.output
    assert "spamscore: [corpus] path = c.csv: 1 of 41 rows (2.4%) have characters" in done.last_line
    assert "These rows are refused." in done.last_line
    (manifest,) = tmp_path.glob("artifacts/corpus/*/manifest.json")
    assert json.loads(manifest.read_text())["replaced"] == 1


def test_only_the_rows_of_the_date_count(tmp_path: Path) -> None:
    rows = "".join(f"m{day},2026-01-{day},café\n" for day in range(10, 30)) + f"m31,{DATE},Hello\n"
    (tmp_path / "inbox.csv").write_bytes(f"message_id,day,text\n{rows}".encode("cp1252"))
    write_settings(tmp_path, {"messages": {"source": "file", "path": "inbox.csv", "date_column": "day"}})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code == 0, done.output
    assert "U+FFFD" not in done.output


def settings_of(path: Path, content: bytes, **values: Any) -> MessagesSettings:
    path.write_bytes(content)
    return MessagesSettings(source="file", path=str(path), **values)


@pytest.mark.parametrize(
    ("content", "values", "expected"),
    [
        ("id,text\n1,lost \ufffd before\n", {}, "valid utf-8: it has U+FFFD itself"),
        (b"id,text\n1,caf\xe9\n", {"encoding": "ascii"}, "seem to be cp1252, in which it reads '1,café'"),
        ("id,text\n1,“café”\n", {"encoding": "cp1252"}, "not valid cp1252: 1, first line 2. They seem to be utf-8"),
        ("id,text\n1,“café”\n", {"encoding": "cp1252"}, "Set [messages] encoding = utf-8"),
        (
            "id,text\n1,☕\n2,é\n".encode() + b"3,caf\xe9\n",
            {},
            "beyond ASCII, valid utf-8: 2. If the file mixes",
        ),
        (b"\xef\xbb\xbfid,text\n3,caf\xe9\n", {}, "'3,café'. Set [messages] encoding = cp1252"),
        (b"id,text\n1," + bytes(range(128, 256)), {}, "no other encoding fits"),
        ("[\n" + '{"text": "café"}'.rjust(200_000) + "]", {"format": "json"}, "valid utf-8: it has U+FFFD itself"),
        (b"[" + b'{"text": "caf\xe9"}'.rjust(200_000) + b"]", {"format": "json"}, "not valid utf-8: 1, first line 1"),
        (b"PAR1", {"format": "parquet"}, "Correct the program that writes it"),
    ],
)
def test_the_cause_is_found_in_the_bytes_of_the_file(
    tmp_path: Path, content: bytes | str, values: dict[str, str], expected: str
) -> None:
    content = content.encode() if isinstance(content, str) else content
    assert expected in describe_cause("messages", settings_of(tmp_path / "m.csv", content, **values))


texts = st.none() | st.text("a£\ufffd", max_size=3)


@given(rows=st.lists(st.tuples(texts, texts), max_size=30))
def test_a_row_counts_once_if_any_of_its_columns_has_a_replaced_character(
    rows: list[tuple[str | None, str | None]],
) -> None:
    source = [SourceRow(number, {"id": a, "text": b}, None) for number, (a, b) in enumerate(rows, 1)]
    counter = ReplacedRows()
    assert list(counter.count(source)) == source
    damaged = [row.row_number for row in source if "\ufffd" in f"{row.values['id']}{row.values['text']}"]
    assert (counter.rows, counter.replaced) == (len(rows), len(damaged))
    assert counter.first.startswith(f"row {damaged[0]}, column " if damaged else "")


@pytest.mark.parametrize(
    ("replaced", "limit", "fails"), [(1, 0.5, False), (2, 0.5, True), (1, 0.0, True), (0, 0.0, False)]
)
def test_the_limit_is_the_largest_share_that_is_allowed(
    tmp_path: Path, replaced: int, limit: float, fails: bool
) -> None:
    counter = ReplacedRows()
    rows = [SourceRow(number, {"text": "\ufffd" if number < replaced else "a"}, None) for number in range(2)]
    list(counter.count(rows))
    settings = settings_of(tmp_path / "m.csv", b"text\na\xff\n", max_replaced_share=limit)
    if fails:
        with pytest.raises(InputError, match="or raise the limit"):
            counter.check("messages", settings)
    else:
        counter.check("messages", settings)
