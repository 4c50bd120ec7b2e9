"""Counts the editions of a snapshot: how often the messages of a date are to be read from the source.

A snapshot is taken once, because its fingerprint leaves out the content of the source. A new edition makes the next run
read the source anew: the edition is a part of the fingerprint from 2 on, so that a first edition keeps its name. The
editions of a date are in `artifacts/extractions/<date>.json`, which retention keeps. They are counted for each
fingerprint of a first edition: a refused attempt with other settings changes nothing for the settings before.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.errors import ArtifactError
from tasks.artifacts.fingerprint import compute_fingerprint
from tasks.artifacts.folders import lock_folder, read_json, write_json
from tasks.artifacts.locations import artifacts_folder

Parts = dict[str, Any]
_FIRST = 1
_IN_FORCE, _LATEST = "edition", "latest"  # keys of the file


def with_edition(date: datetime.date, parts: Parts) -> Parts:
    """Returns the parts of a snapshot's fingerprint with the edition that is in force; unchanged for the first one.

    Args:
        date: date of the messages.
        parts: parts of the fingerprint of the first edition.

    Raises:
        ArtifactError: the file of the date is damaged.
    """
    edition, _ = _read(date).get(compute_fingerprint(parts), (_FIRST, _FIRST))
    return _add(parts, edition)


def start_edition(date: datetime.date, parts: Parts) -> None:
    """Puts a new edition in force, so that the next run reads the source anew. One atomic change of a file.

    Raises:
        ArtifactError: the file of the date is damaged.
    """
    _change(date, parts, lambda latest: latest + 1)


def select_edition(date: datetime.date, parts: Parts, name: str) -> None:
    """Puts the edition with this fingerprint in force again; changes nothing if there is none.

    Raises:
        ArtifactError: the file of the date is damaged.
    """

    def find(latest: int) -> int | None:
        editions = range(_FIRST, latest + 1)
        return next((edition for edition in editions if compute_fingerprint(_add(parts, edition)) == name), None)

    _change(date, parts, find)


def _add(parts: Parts, edition: int) -> Parts:
    return parts if edition == _FIRST else {**parts, "edition": edition}


def _change(date: datetime.date, parts: Parts, choose: Callable[[int], int | None]) -> None:
    """Puts the edition in force that `choose` returns for the latest one; None changes nothing."""
    with lock_folder(artifacts_folder() / "extractions"):
        editions, base = _read(date), compute_fingerprint(parts)
        in_force, latest = editions.get(base, (_FIRST, _FIRST))
        edition = choose(latest)
        if edition not in (None, in_force):
            content = {name: {_IN_FORCE: first, _LATEST: last} for name, (first, last) in editions.items()}
            write_json(_path(date), {**content, base: {_IN_FORCE: edition, _LATEST: max(edition, latest)}})


def _path(date: datetime.date) -> Path:
    return artifacts_folder() / "extractions" / f"{date}.json"


def _read(date: datetime.date) -> dict[str, tuple[int, int]]:
    """Returns the edition in force and the latest one, by fingerprint of the first edition."""
    path = _path(date)
    if not path.is_file():
        return {}
    try:
        return {name: (int(entry[_IN_FORCE]), int(entry[_LATEST])) for name, entry in read_json(path).items()}
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"{path}: expected the editions of the snapshots of {date}, received something else: changed by hand? "
            "Restore it from a backup, or delete it: the snapshots of the first edition are then in force again."
        ) from None
