"""Labelled messages made fit for training: faulty, overruled and repeated rows refused, the rest cleaned and split.

A message's side of the split is a hash of its text, so it never changes when messages come or go. Rows whose cleaned
text is equal are the same to the network: one is kept before the split, or a test message would be known from training.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.settings import SplitSettings

TRAINING, VALIDATION, TEST = "training", "validation", "test"
PARTS = (TRAINING, VALIDATION, TEST)
DUPLICATE = "duplicate"
OVERRULED = "overruled"
# What stands for bytes that are no text in the encoding they were read in.
_LOST = "\ufffd"
_LOST_DETAIL = "U+FFFD stands where bytes were that are no text in the file's encoding"


@dataclass(frozen=True)
class Labels:
    """The values of the label column that mean spam and ham; in a row of feedback `spam` and `ham` themselves do."""

    spam: str
    ham: str


@dataclass(frozen=True)
class PreparedCorpus:
    """What became of the rows.

    Attributes:
        kept: row_number int64, spam bool, text str, cleaned str, part str.
        refused: row_number int64, label, text, reason str, detail str. Every row is in one of the two.
    """

    kept: pd.DataFrame
    refused: pd.DataFrame


def prepare_corpus(
    rows: pd.DataFrame, labels: Labels, clean: Callable[[Sequence[str]], Sequence[str]], split: SplitSettings
) -> PreparedCorpus:
    """Refuses, cleans, removes duplicates, splits.

    Args:
        rows: row_number int64, label, text and fault, each str or missing; feedback bool, whether the row is what a
            person said of a published score, which goes before the other rows of the same text.
        labels: what the label column says.
        clean: the cleaning, messages to cleaned messages.
        split: shares and salt.
    """
    rows = rows.reset_index(drop=True)
    reasons = _faults(rows, labels)
    usable = rows.index[reasons["reason"] == ""]
    texts = clean([str(text) for text in rows.loc[usable, "text"]])
    cleaned = pd.Series(list(texts), index=usable, dtype=object).reindex(rows.index, fill_value="")
    spam = _meaning(rows, labels) == "spam"
    _refuse(reasons, usable[cleaned.loc[usable] == ""], "nothing left after cleaning")
    _refuse_overruled(reasons, rows, cleaned, spam)
    _refuse_repeats(reasons, rows, cleaned, spam)
    kept = rows.index[reasons["reason"] == ""]
    texts = [str(text) for text in rows.loc[kept, "text"]]
    return PreparedCorpus(
        kept=pd.DataFrame(
            {
                "row_number": rows.loc[kept, "row_number"].to_numpy(np.int64),
                "spam": spam.loc[kept].to_numpy(bool),
                "text": texts,
                "cleaned": cleaned.loc[kept].to_list(),
                "part": [part_of(text, split) for text in texts],
            }
        ),
        refused=pd.concat([rows[["row_number", "label", "text"]], reasons], axis=1)
        .drop(index=kept)
        .reset_index(drop=True),
    )


def _faults(rows: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """The reason to refuse each row for itself, or an empty text."""
    reasons = pd.DataFrame({"reason": "", "detail": ""}, index=rows.index, dtype=object)
    faulty = rows.index[rows["fault"].notna()]
    _refuse(reasons, faulty, "unreadable row", rows["fault"])
    has_text = rows["text"].map(lambda text: isinstance(text, str) and bool(text.strip()))
    _refuse(reasons, rows.index[~has_text], "empty text")
    lost = rows["text"].map(lambda text: isinstance(text, str) and _LOST in text)
    _refuse(reasons, rows.index[lost], "characters lost", pd.Series(_LOST_DETAIL, index=rows.index))
    known = _meaning(rows, labels) != ""
    expected = rows["label"].map(lambda label: f"expected {labels.spam} or {labels.ham}, received {label!r}")
    _refuse(reasons, rows.index[~known], "unknown label", expected)
    return reasons


def _meaning(rows: pd.DataFrame, labels: Labels) -> pd.Series:
    """What each row's label says: spam, ham, or an empty text for neither."""
    meanings = {_normal_label(labels.spam): "spam", _normal_label(labels.ham): "ham"}
    of_source = rows["label"].map(lambda label: meanings.get(_normal_label(label), ""))
    of_people = rows["label"].map(lambda label: {"spam": "spam", "ham": "ham"}.get(_normal_label(label), ""))
    return of_source.mask(rows["feedback"], of_people)


def _normal_label(label: object) -> str:
    return label.strip().casefold() if isinstance(label, str) else ""


def _refuse(reasons: pd.DataFrame, where: pd.Index, reason: str, detail: pd.Series | None = None) -> None:
    """Notes a reason for rows that have none yet."""
    where = where[reasons.loc[where, "reason"] == ""]
    reasons.loc[where, "reason"] = reason
    if detail is not None:
        reasons.loc[where, "detail"] = detail.loc[where]


def _refuse_overruled(reasons: pd.DataFrame, rows: pd.DataFrame, cleaned: pd.Series, spam: pd.Series) -> None:
    """Of rows alike after cleaning those go that people contradict with one voice."""
    left = reasons.index[reasons["reason"] == ""]
    said: dict[str, dict[bool, int]] = {}
    for place in left[rows.loc[left, "feedback"]]:
        said.setdefault(cleaned[place], {}).setdefault(bool(spam[place]), int(rows.loc[place, "row_number"]))
    contradicted = {}
    for place in left[~rows.loc[left, "feedback"]]:
        voices = said.get(cleaned[place], {})
        if len(voices) == 1 and bool(spam[place]) not in voices:
            contradicted[place] = f"a person says otherwise in row {next(iter(voices.values()))}"
    _refuse(reasons, pd.Index(list(contradicted)), OVERRULED, pd.Series(contradicted, dtype=object))


def _refuse_repeats(reasons: pd.DataFrame, rows: pd.DataFrame, cleaned: pd.Series, spam: pd.Series) -> None:
    """Of rows alike after cleaning the first stays; where they carry both labels, none does."""
    left = reasons.index[reasons["reason"] == ""]
    groups = pd.DataFrame({"cleaned": cleaned.loc[left], "spam": spam.loc[left], "row": rows.loc[left, "row_number"]})
    by_text = groups.groupby("cleaned", sort=False)
    first = by_text["row"].transform("first")
    torn = by_text["spam"].transform("nunique") > 1
    detail = first.map(lambda row: f"the same as row {row} after cleaning")
    _refuse(reasons, left[torn], "both labels", detail)
    _refuse(reasons, left[first != groups["row"]], DUPLICATE, detail)


def part_of(text: str, split: SplitSettings) -> str:
    """The part a message belongs to: a hash of its text, white space, case and compatibility forms aside.

    The hash is SHA-256, its first eight bytes a number in [0, 1): below the test share test, then validation.
    """
    canonical = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    digest = hashlib.sha256(f"{split.salt}\n{canonical}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < split.test_share:
        return TEST
    return VALIDATION if place < split.test_share + split.validation_share else TRAINING
