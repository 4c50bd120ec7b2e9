"""Where artifacts are: the folder of [artifacts] folder, and the folders below it that more than one module reads."""

from __future__ import annotations

import datetime
from pathlib import Path

from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings

SNAPSHOTS, TRAININGS = "snapshots", "training"
VOCABULARY = "vocabulary.json"


def artifacts_folder() -> Path:
    """The folder of [artifacts] folder, relative to the working folder."""
    return Path(load(ArtifactSettings).folder)


def snapshot_folder(date: datetime.date, name: str) -> Path:
    """The folder of a date's messages, by the name of their snapshot. A batch stores that name."""
    return artifacts_folder() / SNAPSHOTS / date.isoformat() / name


def training_folder(name: str) -> Path:
    """The folder of a training, by its fingerprint."""
    return artifacts_folder() / TRAININGS / name
