"""Paths of artifacts: the folder of [artifacts] folder, and the folders and files in it that several modules read."""

from __future__ import annotations

import datetime
from pathlib import Path

from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings

MESSAGES, SNAPSHOTS, TRAININGS, EVALUATIONS = "messages", "snapshots", "training", "evaluation"
NIGHT_MESSAGES = "night_messages"
VOCABULARY = "vocabulary.json"
METRICS, EVALUATION_REPORT = "metrics.json", "report.html"


def artifacts_folder() -> Path:
    """Returns the folder of [artifacts] folder, relative to the working folder."""
    return Path(load(ArtifactSettings).folder)


def snapshot_folder(date: datetime.date, name: str) -> Path:
    """Returns the folder of a snapshot: the messages of a date. A batch stores the snapshot's name."""
    return artifacts_folder() / SNAPSHOTS / date.isoformat() / name


def training_folder(name: str) -> Path:
    """Returns the folder of a training, by its fingerprint."""
    return artifacts_folder() / TRAININGS / name


def evaluation_folder(name: str) -> Path:
    """Returns the folder of an evaluation, by its fingerprint."""
    return artifacts_folder() / EVALUATIONS / name
