"""Bad labelled messages: a run fails with an error that names the row, or single rows are refused with a reason."""

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

ALL = len(ROWS)
SPAM = sum(label == "spam" for label, _ in ROWS)
FIRST_SPAM = 1 + next(place for place, (label, _) in enumerate(ROWS) if label == "spam")
HALF = ALL // 2
REST = ALL - HALF

COUNT = len(ROWS)
SPAM = sum(label == "spam" for label, _ in ROWS)
FIRST_SPAM = 1 + next(index for index, (label, _) in enumerate(ROWS) if label == "spam")
HALF = COUNT // 2
REST = COUNT - HALF

Rows = Sequence[tuple[str, str]]


def make_table(rows: Rows, encoding: str = "utf-8", header: str = "label,text") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return f"{header}\r\n{text.getvalue()}".encode(encoding, "replace")


def make_lines(rows: Rows) -> bytes:
    return "".join(f"{label}\t{text}\n" for label, text in rows if "\n" not in text).encode()


def relabel_table(spam: str, ham: str) -> bytes:
    return make_table([(spam if label == "spam" else ham, text) for label, text in ROWS])


def make_parquet() -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"label": [label for label, _ in ROWS], "text": [text for _, text in ROWS]}), content)
    return content.getvalue()


def make_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(SAMPLE, "corpus.csv")
    return content.getvalue()


ACCENTED = [(label, f"{text} café") for label, text in ROWS]
NOISE = random.Random(1).randbytes(100_000)
# File name, content (None: a folder), exit code, and texts of the last line.
REFUSED: dict[str, tuple[str, bytes | None, int, list[str]]] = {
    "one label only": (
        "c.csv", make_table([("ham", text) for _, text in ROWS]), 30,
        [f"of {COUNT} labelled messages 0 spam ([corpus] spam_label = spam) and {COUNT} ham", "both are needed"],
    ),
    "labels misspelled": (
        "c.csv", relabel_table("spma", "ham"), 30,
        [f"{SPAM} of {COUNT} labelled messages are refused, more than [corpus] max_refused_share = 0.2 allows",
         f"{SPAM} unknown label (first in row {FIRST_SPAM}: expected spam or ham, received 'spma')",
         f"Values of [corpus] label_column = label that spam_label and ham_label do not have: {SPAM:,} 'spma'."],
    ),
    "labels that the settings do not name": (
        "c.csv", relabel_table("1", "0"), 30, [f"{COUNT} of {COUNT}", "expected spam or ham, received '0'", "label"],
    ),
    "all duplicates": (
        "c.csv", make_table([("ham", "hello you")] * 100), 30, ["0 spam", "and 1 ham", "refused: 99 duplicate"],
    ),
    "duplicates that contradict each other": (
        "c.csv", make_table([(label, text) for _, text in ROWS[:50] for label in ("ham", "spam")]), 30,
        ["100 of 100", "100 both labels (first in row 1: the same as row 1 after cleaning)"],
    ),
    "half UTF-8, half Latin-1": (
        "c.csv", make_table(ACCENTED[:HALF]) + make_table(ACCENTED[HALF:], "latin-1").split(b"\r\n", 1)[1], 30,
        [f"{REST:,} of {COUNT:,} rows (50.0%)", f"first in row {HALF + 1}, column text", "max_replaced_share = 0.05",
         "They seem to be cp1252", "If the file mixes encodings, write it in one"],
    ),
    "UTF-16 without a mark or a header": (
        "c.txt", make_lines(ROWS).decode().encode("utf-16-be"), 30,
        ["received utf-16-be without a byte order mark", "Set [corpus] encoding = utf-16-be"],
    ),
    "noise as label TAB text": ("c.txt", NOISE, 30, ["rows (99.5%) have characters", "no other encoding fits"]),
    "UTF-16 without a mark": (
        "c.csv", make_table(ROWS, "utf-16-le"), 30,
        ["received utf-16-le without a byte order mark", "Set [corpus] encoding = utf-16-le"],
    ),
    "no rows": ("c.csv", b"", 30, ["expected rows, received an empty file (0 bytes)"]),
    "a header alone": ("c.csv", make_table([]), 30, ["expected labelled messages, received no row"]),
    "no header where one is expected": (
        "c.csv", make_table(ROWS).split(b"\r\n", 1)[1], 30, ["label_column = label: no such column. Columns are ham, "],
    ),
    "a column missing": ("c.csv", make_table(ROWS, header="class,text"), 30, ["no such column", "class, text"]),
    "wrong separator": (
        "c.csv", make_table(ROWS, header="label;text"), 30, ["wrong number of fields: expected 2, received 1"],
    ),
    "noise": ("c.csv", NOISE, 30, ["label_column = label: no such column"]),
    "a zip by its name": ("c.zip", make_zip(), 30, ["the file is a zip archive. Unpack it"]),
    "a zip by another name": ("c.csv", make_zip(), 30, ["the file is a zip archive. Unpack it"]),
    "Parquet cut short": ("c.parquet", make_parquet()[:-2000], 30, ["cannot be read as Parquet"]),
    "a folder": ("c.csv", None, 20, ["[corpus] path = c.csv: expected a file, received the folder c.csv"]),
}  # fmt: skip


def run(folder: Path, stage: str, name: str, content: bytes | None, **corpus: str) -> CommandResult:
    (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
    write_settings(folder, merge_settings(SMALL, {"corpus": {"source": "file", "path": name, **corpus}}))
    return luigi(folder, stage)


@pytest.mark.parametrize("case", REFUSED)
def test_an_unusable_corpus_fails_the_run_with_a_one_line_reason(tmp_path: Path, case: str) -> None:
    name, content, code, messages = REFUSED[case]
    done = run(tmp_path, "CleanText", name, content)
    assert done.code == code, done.output
    assert [message for message in messages if message not in done.last_line] == []
    assert "[corpus]" in done.last_line
    assert "Traceback" not in done.output
    assert not (tmp_path / "artifacts" / "messages").exists() or not [
        path for path in (tmp_path / "artifacts" / "messages").iterdir() if not path.name.endswith(".partial")
    ]


def test_three_rows_are_too_few_for_a_training(tmp_path: Path) -> None:
    rows = [("spam", "win win now"), ("ham", "see you you"), ("ham", "at noon noon")]
    done = run(tmp_path, "TrainModel", "c.csv", make_table(rows))
    assert done.code == 30
    assert "Give more labelled messages ([corpus])" in done.last_line
    assert "Traceback" not in done.output


def read_refused_rows(folder: Path) -> list[dict[str, object]]:
    (path,) = (folder / "artifacts" / "messages").glob("*/refused.parquet")
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def test_bad_rows_of_a_corpus_are_stored_with_their_reason_and_the_others_are_used(tmp_path: Path) -> None:
    """The corpus has a byte order mark, labels in capitals with spaces, a million characters, and bad rows."""
    good = [(f" {label.upper()} ", text) for label, text in ROWS] + [("spam", "win a boat " * 100_000)]
    bad = [("spma", "a misspelled label"), ("", "no label"), ("ham", " "), ("ham", "!")]
    twice = [ROWS[0], ("spam", "said by both"), ("ham", "said by both")]
    faulty = b'ham,one,field too many\r\nham,caf\xe9 in Latin-1\r\nham,"never closed\r\nham,after it\r\n'
    done = run(tmp_path, "CleanText", "c.csv", b"\xef\xbb\xbf" + make_table([*good, *bad, *twice]) + faulty)
    assert done.code == 0, done.output
    refused = read_refused_rows(tmp_path)
    assert Counter(str(row["reason"]) for row in refused) == {
        "unknown label": 2, "empty text": 1, "duplicate": 1, "both labels": 2, "unreadable row": 2,
        "characters lost": 1,
    }  # fmt: skip
    assert all(row["detail"] for row in refused if row["reason"] != "empty text")
    accepted = sum(len(pq.read_table(path)) for path in (tmp_path / "artifacts" / "messages").glob("*/t*.parquet"))
    accepted += sum(
        len(pq.read_table(path)) for path in (tmp_path / "artifacts" / "messages").glob("*/validation.parquet")
    )
    rows = len(good) + len(bad) + len(twice) + 4
    assert accepted + len(refused) == rows
    assert "2 unknown label" in done.output


SMISHING = [
    ("Smishing" if label == "spam" and place % 3 == 0 else label, text) for place, (label, text) in enumerate(ROWS)
]
OTHERS = Counter(label for label, _ in SMISHING)["Smishing"]


def test_labels_that_are_neither_spam_nor_ham_are_a_warning_with_their_counts_and_the_setting(tmp_path: Path) -> None:
    rows = [*SMISHING, ("x", "an x"), (" smishing ", "in another case"), ("", "none")]
    done = run(tmp_path, "CleanText", "c.csv", make_table(rows))
    assert done.code == 0, done.output
    warning = (
        f"{OTHERS + 3:,} rows of [corpus] path = c.csv have a label that is neither spam nor ham, and are refused: "
        f"{OTHERS + 1:,} 'Smishing', 1 'x', 1 missing. To use them, add the labels to [corpus] spam_label or "
        "ham_label, for example spam_label = spam, Smishing"
    )
    assert done.last_line == f"spamscore: {warning}"
    assert f"WARNING: {warning}" in done.output
    (report,) = tmp_path.glob("artifacts/messages/*/data_report.md")
    table = report.read_text().split("| label that is neither spam nor ham | rows |\n")[1].splitlines()
    assert table == ["| --- | ---: |", f"| 'Smishing' | {OTHERS + 1} |", "| 'x' | 1 |", "| missing | 1 |"]
    # The setting that the message names takes them.
    done = run(tmp_path, "CleanText", "c.csv", make_table(rows[:-3]), spam_label="spam, Smishing")
    assert done.code == 0, done.output
    assert "unknown label" not in done.output
    assert "neither" not in done.output


@pytest.mark.parametrize("share", ["0.2", "1"])
def test_the_message_about_a_wrong_label_column_is_bounded(tmp_path: Path, share: str) -> None:
    rows = [(f"{text * 50} {number}", text) for number, (_, text) in enumerate(ROWS)]
    done = run(tmp_path, "CleanText", "c.csv", make_table([*rows, *ROWS]), max_refused_share=share)
    assert done.code == (30 if share == "0.2" else 0), done.output
    assert f"1 with {COUNT - 5:,} other values" in done.last_line.replace(f"{COUNT - 5:,} with", "1 with")
    assert len(done.last_line) < 1500
    reports = [path.read_text() for path in tmp_path.glob("artifacts/messages/*/data_report.md")]
    assert all(f"| {COUNT - 50} other values | {COUNT - 50} |" in report for report in reports)
    assert len(reports) == (share == "1")


def test_the_order_and_repetition_of_label_values_do_not_make_another_corpus(tmp_path: Path) -> None:
    done = run(tmp_path, "CleanText", "c.csv", make_table(SMISHING), spam_label="spam, Smishing")
    assert done.code == 0, done.output
    done = run(tmp_path, "CleanText", "c.csv", make_table(SMISHING), spam_label="Smishing,spam")
    assert "CleanText() was already complete" in done.last_line


def test_an_unexpected_header_is_a_refused_row(tmp_path: Path) -> None:
    done = run(tmp_path, "CleanText", "c.txt", b"label\ttext\n" + make_lines(ROWS))
    assert done.code == 0, done.output
    assert [(row["row_number"], row["reason"], row["detail"]) for row in read_refused_rows(tmp_path)] == [
        (1, "unreadable row", "repeated header (line 1)")
    ]


def test_the_share_of_refused_rows_is_limited_by_a_setting(tmp_path: Path) -> None:
    done = run(tmp_path, "CleanText", "c.csv", make_table([*ROWS, ("eggs", "one more")]), max_refused_share="0.0001")
    assert done.code == 30
    assert (
        f"1 of {COUNT + 1} labelled messages are refused, more than [corpus] max_refused_share = 0.0001"
        in done.last_line
    )
