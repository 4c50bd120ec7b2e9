"""Prepares labelled messages for training: refuses faulty, overruled and duplicate rows, cleans and splits the others.

A hash of its text decides the part of a message, so it stays in its part when messages are added or removed. Rows with
the same cleaned text are equal to the network. Only one of them is kept, before the split; otherwise a test message
could also be a training message.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.settings import SplitSettings

TRAINING, VALIDATION, TEST = "training", "validation", "test"
PARTS = (TRAINING, VALIDATION, TEST)
DUPLICATE = "duplicate"
OVERRULED = "overruled"
UNKNOWN_LABEL = "unknown label"
# The replacement character: for bytes that are invalid in the encoding of the file, or written by another program.
_REPLACEMENT = "\ufffd"
_REPLACEMENT_DETAIL = "U+FFFD in place of a character that could not be read"


@dataclass(frozen=True)
class Labels:
    """The values of the label column that mean spam and ham. Feedback rows always use `spam` and `ham`."""

    spam: tuple[str, ...]
    ham: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.spam)} or {', '.join(self.ham)}"


@dataclass(frozen=True)
class PreparedCorpus:
    """The rows after preparation. Every row is in one of the two frames.

    Attributes:
        kept: row_number int64, spam bool, text str, cleaned str, part str.
        refused: row_number int64, label, text, reason str, detail str.
    """

    kept: pd.DataFrame
    refused: pd.DataFrame


def prepare_corpus(
    rows: pd.DataFrame, labels: Labels, clean: Callable[[Sequence[str]], Sequence[str]], split: SplitSettings
) -> PreparedCorpus:
    """Refuses unusable rows, cleans the messages, removes duplicates, and splits.

    Args:
        rows: row_number int64; label, text and fault, each str or missing; feedback bool, whether the row is a person's
            label for a published score. Feedback takes precedence over other rows with the same text.
        labels: the values of the label column.
        clean: function from messages to cleaned messages.
        split: shares and salt.
    """
    rows = rows.reset_index(drop=True)
    reasons = _find_faults(rows, labels)
    usable = rows.index[reasons["reason"] == ""]
    texts = clean([str(text) for text in rows.loc[usable, "text"]])
    cleaned = pd.Series(list(texts), index=usable, dtype=object).reindex(rows.index, fill_value="")
    spam = _parse_labels(rows, labels) == "spam"
    _refuse(reasons, usable[cleaned.loc[usable] == ""], "nothing left after cleaning")
    _refuse_overruled(reasons, rows, cleaned, spam)
    _refuse_duplicates(reasons, rows, cleaned, spam)
    kept = rows.index[reasons["reason"] == ""]
    texts = [str(text) for text in rows.loc[kept, "text"]]
    return PreparedCorpus(
        kept=pd.DataFrame(
            {
                "row_number": rows.loc[kept, "row_number"].to_numpy(np.int64),
                "spam": spam.loc[kept].to_numpy(bool),
                "text": texts,
                "cleaned": cleaned.loc[kept].to_list(),
                "part": [assign_part(text, split) for text in texts],
            }
        ),
        refused=pd.concat([rows[["row_number", "label", "text"]], reasons], axis=1)
        .drop(index=kept)
        .reset_index(drop=True),
    )


def _find_faults(rows: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Returns for each row a reason to refuse it, without looking at other rows; an empty text if there is none."""
    reasons = pd.DataFrame({"reason": "", "detail": ""}, index=rows.index, dtype=object)
    faulty = rows.index[rows["fault"].notna()]
    _refuse(reasons, faulty, "unreadable row", rows["fault"])
    has_text = rows["text"].map(lambda text: isinstance(text, str) and bool(text.strip()))
    _refuse(reasons, rows.index[~has_text], "empty text")
    has_replacement = rows["text"].map(lambda text: isinstance(text, str) and _REPLACEMENT in text)
    _refuse(reasons, rows.index[has_replacement], "characters lost", pd.Series(_REPLACEMENT_DETAIL, index=rows.index))
    is_known = _parse_labels(rows, labels) != ""
    expected = rows["label"].map(lambda label: f"expected {labels}, received {describe_label(label)}")
    _refuse(reasons, rows.index[~is_known], UNKNOWN_LABEL, expected)
    return reasons


def _parse_labels(rows: pd.DataFrame, labels: Labels) -> pd.Series:
    """Returns the label of each row: spam, ham, or an empty text for neither."""
    source_labels = rows["label"].map(label_parser(labels))
    feedback_labels = rows["label"].map(label_parser(Labels(("spam",), ("ham",))))
    return source_labels.mask(rows["feedback"], feedback_labels)


def label_parser(labels: Labels) -> Callable[[object], str]:
    """Returns a function from a value of the label column to spam, ham, or an empty text for neither."""
    values = {
        **{_normalize_label(label): "spam" for label in labels.spam},
        **{_normalize_label(label): "ham" for label in labels.ham},
    }
    return lambda label: values.get(_normalize_label(label), "")


def _normalize_label(label: object) -> str:
    return label.strip().casefold() if isinstance(label, str) else ""


def describe_label(label: object) -> str:
    """Returns a label as it is shown in messages: quoted, at most 40 characters. A wrong column may hold long texts."""
    return repr(label if not isinstance(label, str) or len(label) <= 40 else f"{label[:39]}…")


def count_unknown_labels(corpus: PreparedCorpus) -> Counter[str]:
    """Counts the rows that were refused because their label is neither spam nor ham, by label.

    Labels that differ only in case and outer spaces are one, spelled as in the first row. A missing label is empty.
    """
    counts: Counter[str] = Counter()
    spellings: dict[str, str] = {}
    for label in corpus.refused.loc[corpus.refused["reason"] == UNKNOWN_LABEL, "label"]:
        spelling = label.strip() if isinstance(label, str) else ""
        counts[spellings.setdefault(_normalize_label(label), spelling)] += 1
    return counts


def _refuse(reasons: pd.DataFrame, where: pd.Index, reason: str, detail: pd.Series | None = None) -> None:
    """Records a reason for rows that have none yet."""
    where = where[reasons.loc[where, "reason"] == ""]
    reasons.loc[where, "reason"] = reason
    if detail is not None:
        reasons.loc[where, "detail"] = detail.loc[where]


def _refuse_overruled(reasons: pd.DataFrame, rows: pd.DataFrame, cleaned: pd.Series, spam: pd.Series) -> None:
    """Refuses rows whose label differs from the label that all feedback for the same cleaned text has."""
    remaining = reasons.index[reasons["reason"] == ""]
    feedback: dict[str, dict[bool, int]] = {}
    for index in remaining[rows.loc[remaining, "feedback"]]:
        feedback.setdefault(cleaned[index], {}).setdefault(bool(spam[index]), int(rows.loc[index, "row_number"]))
    contradicted = {}
    for index in remaining[~rows.loc[remaining, "feedback"]]:
        row_numbers = feedback.get(cleaned[index], {})
        if len(row_numbers) == 1 and bool(spam[index]) not in row_numbers:
            contradicted[index] = f"a person's label in row {next(iter(row_numbers.values()))} differs"
    _refuse(reasons, pd.Index(list(contradicted)), OVERRULED, pd.Series(contradicted, dtype=object))


def _refuse_duplicates(reasons: pd.DataFrame, rows: pd.DataFrame, cleaned: pd.Series, spam: pd.Series) -> None:
    """Refuses all but the first of the rows with the same cleaned text, and all of them if they have both labels."""
    remaining = reasons.index[reasons["reason"] == ""]
    groups = pd.DataFrame(
        {"cleaned": cleaned.loc[remaining], "spam": spam.loc[remaining], "row": rows.loc[remaining, "row_number"]}
    )
    by_text = groups.groupby("cleaned", sort=False)
    first = by_text["row"].transform("first")
    has_both_labels = by_text["spam"].transform("nunique") > 1
    detail = first.map(lambda row: f"the same as row {row} after cleaning")
    _refuse(reasons, remaining[has_both_labels], "both labels", detail)
    _refuse(reasons, remaining[first != groups["row"]], DUPLICATE, detail)


def assign_part(text: str, split: SplitSettings) -> str:
    """Assigns a message to a part of the split by a hash of its text.

    Differences in white space, case and compatibility forms are ignored. The first eight bytes of the SHA-256 are taken
    as a number in [0, 1). Below the test share the part is test, then validation, then training.
    """
    canonical = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    digest = hashlib.sha256(f"{split.salt}\n{canonical}".encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < split.test_share:
        return TEST
    return VALIDATION if position < split.test_share + split.validation_share else TRAINING
