"""Collects what a run left behind, and compares it with the result of an undisturbed run."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from drill.reader import Reader, Row, read_published_rows

from tasks.database.tables import rejected_messages, score_batches, spam_scores

_STRAY = re.compile(r"\.partial$|tmp|tempstate|_temp")
# A database server does not use a batch number again, also if the transaction that took it was killed.
_BATCH_NUMBER = re.compile(r"batch-\d+\.json$")
_CHECKPOINT = re.compile(r"checkpoint|ckpt-\d+\.(index|data-\d{5}-of-\d{5})")


@dataclass(frozen=True)
class Outcome:
    """The state after a run: everything that must be the same however often the run was disturbed.

    Attributes:
        rows: published rows, sorted.
        rejected: rejected messages of the published batch, sorted.
        batches: state, counts and checksum of each batch of the date.
        duplicates: rows with the batch and message of an earlier row.
        weights: SHA-256 of the weights, by training manifest and by exported file.
        content: SHA-256 of the tables, vocabularies and metrics among the artifacts.
        files: files among the artifacts, except those whose names depend on the time or on interruptions of training.
        strays: unfinished files and folders among the artifacts and in the folder for temporary files.
    """

    rows: list[Row]
    rejected: list[Row]
    batches: list[Row]
    duplicates: int
    weights: dict[str, str]
    content: dict[str, str]
    files: set[str]
    strays: list[str]


@dataclass(frozen=True)
class Verdict:
    """The differences between an outcome and the undisturbed outcome, and the wrong readings of the reader."""

    lost: int
    doubled: int
    weights_equal: bool
    strays: list[str]
    differences: list[str]
    readings: int
    wrong: int

    @property
    def good(self) -> bool:
        """Returns whether there is no difference and no wrong reading."""
        return not (self.lost or self.doubled or self.strays or self.differences or self.wrong) and self.weights_equal


def compare_outcomes(outcome: Outcome, undisturbed: Outcome, reader: Reader) -> Verdict:
    """Compares an outcome with the undisturbed outcome."""
    missing = Counter(undisturbed.rows) - Counter(outcome.rows)
    repeated = sum(count - 1 for count in Counter(row[0] for row in outcome.rows).values())
    names = ("rows", "rejected", "batches", "content")
    differences = [f"other {name}" for name in names if getattr(outcome, name) != getattr(undisturbed, name)]
    differences += [f"missing {file}" for file in sorted(undisturbed.files - outcome.files)]
    differences += sorted(set(reader.wrong_readings))
    return Verdict(
        lost=missing.total(),
        doubled=repeated + outcome.duplicates,
        weights_equal=bool(outcome.weights) and outcome.weights == undisturbed.weights,
        strays=outcome.strays + sorted(outcome.files - undisturbed.files),
        differences=differences,
        readings=reader.readings,
        wrong=len(reader.wrong_readings),
    )


def collect_outcome(connection: sa.Connection, artifacts: Path, temporary: Path) -> Outcome:
    """Reads the outcome of a run.

    Args:
        connection: database of the run.
        artifacts: folder of the artifacts.
        temporary: folder for temporary files of the run.
    """
    rows = read_published_rows(connection)
    batch, message = score_batches.c, rejected_messages.c
    columns = [batch[name] for name in ("state", "messages_read", "scored", "rejected", "flagged", "checksum")]
    batches = [tuple(row) for row in connection.execute(sa.select(*columns).order_by(batch.batch_id))]
    select_rejected = sa.select(message.row_number, message.message_id, message.reason).join(
        score_batches, (message.batch_id == batch.batch_id) & (batch.state == "published")
    )
    rejected = sorted(tuple(row) for row in connection.execute(select_rejected))
    keys = connection.execute(sa.select(spam_scores.c.batch_id, spam_scores.c.message_id))
    duplicates = sum(count - 1 for count in Counter(map(tuple, keys)).values())
    files = {_BATCH_NUMBER.sub("batch-N.json", str(path.relative_to(artifacts))) for path in artifacts.rglob("*")}
    strays = sorted(file for file in files if _is_stray(Path(file)))
    strays += [f"temporary: {name}" for name in sorted(path.name for path in temporary.iterdir())]
    stable_files = {file for file in files if not {"checkpoints", "tensorboard"} & set(Path(file).parts)} - set(strays)
    return Outcome(
        rows, rejected, batches, duplicates, _hash_weights(artifacts), _hash_content(artifacts), stable_files, strays
    )


def _is_stray(path: Path) -> bool:
    in_checkpoints = path.parent.name == "checkpoints"
    return bool(_STRAY.search(path.name)) or (in_checkpoints and _CHECKPOINT.fullmatch(path.name) is None)


def _hash_weights(artifacts: Path) -> dict[str, str]:
    hashes = {
        str(path.relative_to(artifacts)): str(json.loads(path.read_text(encoding="utf-8"))["weights_sha256"])
        for path in artifacts.glob("training/*/model.json")
    }
    for path in artifacts.glob("exports/*/*/assets.extra/weights.npz"):
        digest = hashlib.sha256()
        with np.load(path) as arrays:
            for name in sorted(arrays.files):
                digest.update(name.encode() + arrays[name].tobytes())
        hashes[str(path.relative_to(artifacts))] = digest.hexdigest()
    return hashes


def _hash_content(artifacts: Path) -> dict[str, str]:
    paths = [*artifacts.rglob("*.parquet"), *artifacts.rglob("vocabulary.json"), *artifacts.rglob("metrics.json")]
    return {str(path.relative_to(artifacts)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
