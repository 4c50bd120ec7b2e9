"""Labelled messages that are not as they should be: an error that says what and where, or rows refused with reasons."""

from __future__ import annotations

import csv
import io
import random
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain import SMALL, CommandResult, luigi, merge_settings, write_settings

SAMPLE = Path(__file__).resolve().parents[2] / "pipeline" / "sample" / "corpus.csv"
with SAMPLE.open(newline="", encoding="utf-8") as _file:
    ROWS = [(row["label"], row["text"]) for row in csv.DictReader(_file)]

Rows = Sequence[tuple[str, str]]


def table(rows: Rows, encoding: str = "utf-8", header: str = "label,text") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return f"{header}\r\n{text.getvalue()}".encode(encoding, "replace")


def lines(rows: Rows) -> bytes:
    return "".join(f"{label}\t{text}\n" for label, text in rows if "\n" not in text).encode()


def relabelled(spam: str, ham: str) -> bytes:
    return table([(spam if label == "spam" else ham, text) for label, text in ROWS])


def parquet() -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"label": [label for label, _ in ROWS], "text": [text for _, text in ROWS]}), content)
    return content.getvalue()


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(SAMPLE, "corpus.csv")
    return content.getvalue()


ACCENTED = [(label, f"{text} café") for label, text in ROWS]
NOISE = random.Random(1).randbytes(100_000)
# The name of the file, what is in it (None: it is a folder), the exit code, and what the last line says.
REFUSED: dict[str, tuple[str, bytes | None, int, list[str]]] = {
    "one label only": (
        "c.csv", table([("ham", text) for _, text in ROWS]), 30,
        ["of 694 labelled messages 0 spam ([corpus] spam_label = spam) and 694 ham", "both are needed"],
    ),
    "labels misspelled": (
        "c.csv", relabelled("spma", "ham"), 30,
        ["201 of 694 labelled messages are refused, more than [corpus] max_refused_share = 0.2 allows",
         "201 unknown label (first in row 3: expected spam or ham, received 'spma')"],
    ),
    "labels that the settings do not name": (
        "c.csv", relabelled("1", "0"), 30, ["694 of 694", "expected spam or ham, received '0'", "label"],
    ),
    "all duplicates": (
        "c.csv", table([("ham", "hello you")] * 100), 30, ["0 spam", "and 1 ham", "refused: 99 duplicate"],
    ),
    "duplicates that contradict each other": (
        "c.csv", table([(label, text) for _, text in ROWS[:50] for label in ("ham", "spam")]), 30,
        ["100 of 100", "100 both labels (first in row 1: the same as row 1 after cleaning)"],
    ),
    "half UTF-8, half Latin-1": (
        "c.csv", table(ACCENTED[:347]) + table(ACCENTED[347:], "latin-1").split(b"\r\n", 1)[1], 30,
        ["347 of 694", "347 characters lost (first in row 348: U+FFFD stands where bytes were", "encoding settings"],
    ),
    "UTF-16 without a header": ("c.txt", lines(ROWS).decode().encode("utf-16"), 30, ["unknown label (first in row 1"]),
    "noise as label TAB text": ("c.txt", NOISE, 30, ["unreadable row (first in row 1: wrong number of fields"]),
    "UTF-16": ("c.csv", table(ROWS, "utf-16"), 30, ["label_column = label: no such column", "as csv in utf-8"]),
    "no rows": ("c.csv", b"", 30, ["expected rows, received an empty file (0 bytes)"]),
    "a header alone": ("c.csv", table([]), 30, ["expected labelled messages, received no row"]),
    "no header where one is expected": (
        "c.csv", table(ROWS).split(b"\r\n", 1)[1], 30, ["label_column = label: no such column. Columns are ham, "],
    ),
    "a column missing": ("c.csv", table(ROWS, header="class,text"), 30, ["no such column", "class, text"]),
    "wrong separator": (
        "c.csv", table(ROWS, header="label;text"), 30, ["its columns seem to be separated by semicolons"],
    ),
    "noise": ("c.csv", NOISE, 30, ["label_column = label: no such column"]),
    "a zip by its name": ("c.zip", zipped(), 30, ["the ending '.zip' does not tell the layout"]),
    "a zip by another name": ("c.csv", zipped(), 30, ["label_column = label: no such column"]),
    "Parquet cut short": ("c.parquet", parquet()[:-2000], 30, ["cannot be read as Parquet"]),
    "a folder": ("c.csv", None, 20, ["[corpus] path = c.csv: expected a file, received a folder"]),
}  # fmt: skip


def run(folder: Path, stage: str, name: str, content: bytes | None, **corpus: str) -> CommandResult:
    (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
    write_settings(folder, merge_settings(SMALL, {"corpus": {"source": "file", "path": name, **corpus}}))
    return luigi(folder, stage)


@pytest.mark.parametrize("case", REFUSED)
def test_a_corpus_that_is_of_no_use_ends_the_run_with_one_line_that_says_why(tmp_path: Path, case: str) -> None:
    name, content, code, said = REFUSED[case]
    done = run(tmp_path, "CleanText", name, content)
    assert done.code == code, done.output
    assert [one for one in said if one not in done.last_line] == []
    assert "[corpus]" in done.last_line
    assert "Traceback" not in done.output
    assert not (tmp_path / "artifacts" / "messages").exists() or not [
        path for path in (tmp_path / "artifacts" / "messages").iterdir() if not path.name.endswith(".partial")
    ]


def test_three_rows_are_too_few_to_train_with_and_said_to_be(tmp_path: Path) -> None:
    rows = [("spam", "win win now"), ("ham", "see you you"), ("ham", "at noon noon")]
    done = run(tmp_path, "TrainModel", "c.csv", table(rows))
    assert done.code == 30
    assert "Give more labelled messages ([corpus])" in done.last_line
    assert "Traceback" not in done.output


def refused_rows(folder: Path) -> list[dict[str, object]]:
    (path,) = (folder / "artifacts" / "messages").glob("*/refused.parquet")
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def test_a_corpus_with_a_few_bad_rows_is_taken_and_each_of_them_kept_with_its_reason(tmp_path: Path) -> None:
    """A byte order mark, labels in capitals with spaces, a million characters; and rows that are refused."""
    good = [(f" {label.upper()} ", text) for label, text in ROWS] + [("spam", "win a boat " * 100_000)]
    bad = [("spma", "a misspelled label"), ("", "no label"), ("ham", " "), ("ham", "!")]
    twice = [ROWS[0], ("spam", "said by both"), ("ham", "said by both")]
    faulty = b'ham,one,field too many\r\nham,caf\xe9 in Latin-1\r\nham,"never closed\r\nham,after it\r\n'
    done = run(tmp_path, "CleanText", "c.csv", b"\xef\xbb\xbf" + table([*good, *bad, *twice]) + faulty)
    assert done.code == 0, done.output
    refused = refused_rows(tmp_path)
    assert Counter(str(row["reason"]) for row in refused) == {
        "unknown label": 2, "empty text": 1, "duplicate": 1, "both labels": 2, "unreadable row": 2,
        "characters lost": 1,
    }  # fmt: skip
    assert all(row["detail"] for row in refused if row["reason"] != "empty text")
    kept = sum(len(pq.read_table(path)) for path in (tmp_path / "artifacts" / "messages").glob("*/t*.parquet"))
    kept += sum(len(pq.read_table(path)) for path in (tmp_path / "artifacts" / "messages").glob("*/validation.parquet"))
    rows = len(good) + len(bad) + len(twice) + 4
    assert kept + len(refused) == rows
    assert "2 unknown label" in done.output


def test_a_header_where_none_is_expected_is_a_row_of_an_unknown_label(tmp_path: Path) -> None:
    done = run(tmp_path, "CleanText", "c.txt", b"label\ttext\n" + lines(ROWS))
    assert done.code == 0, done.output
    assert [(row["row_number"], row["reason"], row["detail"]) for row in refused_rows(tmp_path)] == [
        (1, "unknown label", "expected spam or ham, received 'label'")
    ]


def test_how_many_rows_may_be_refused_is_a_setting(tmp_path: Path) -> None:
    done = run(tmp_path, "CleanText", "c.csv", table([*ROWS, ("eggs", "one of 695")]), max_refused_share="0.001")
    assert done.code == 30
    assert "1 of 695 labelled messages are refused, more than [corpus] max_refused_share = 0.001" in done.last_line
