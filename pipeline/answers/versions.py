"""Describes the exported model versions, from the files that ExportModel and EvaluateModel wrote."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from models.errors import ArtifactError
from tasks.artifacts.exports import list_versions, read_version_manifest, served_versions, version_folder
from tasks.artifacts.folders import MANIFEST, read_json
from tasks.artifacts.locations import METRICS, evaluation_folder
from tasks.artifacts.model_config import ServedVersions


@dataclass(frozen=True)
class ExportedVersion:
    """An exported model version. Metrics are those of the test part, and None if the evaluation is missing.

    Attributes:
        version: number of the version.
        in_service: whether the next batch is scored with it.
        exported_at: time of the export, UTC.
        pr_auc: area under the precision-recall curve.
        mcc: Matthews correlation coefficient.
        training: fingerprint that names the folder of its checkpoints.
        folder: folder of the export.
        threshold: threshold at the time of the export; None for a version exported before it was stored.
        approved: whether EvaluateModel approved it; False if a person overruled the gate; None as above.
        candidate: whether it has the label canary.
    """

    version: int
    in_service: bool
    exported_at: datetime.datetime | None
    pr_auc: float | None
    mcc: float | None
    training: str | None
    folder: str
    threshold: float | None
    approved: bool | None
    candidate: bool


def exported_versions() -> list[ExportedVersion]:
    """Returns all exported versions, newest first.

    Raises:
        ArtifactError: a file of a version is missing or damaged.
    """
    served = served_versions()
    return [_describe_version(version, served) for version in reversed(list_versions())]


def _describe_version(version: int, served: ServedVersions | None) -> ExportedVersion:
    manifest = read_version_manifest(version)
    metrics = _read_metrics(str(manifest.get("evaluation")))
    exported_at = manifest.get("exported_at")
    return ExportedVersion(
        version=version,
        in_service=served is not None and version == served.stable,
        exported_at=_parse_time(exported_at, version) if exported_at else None,
        pr_auc=metrics.get("pr_auc"),
        mcc=metrics.get("mcc"),
        training=manifest.get("training"),
        folder=str(version_folder(version)),
        threshold=(manifest.get("threshold") or {}).get("value"),
        approved=(manifest.get("judged") or {}).get("approved"),
        candidate=served is not None and version == served.canary,
    )


def describe_self_training(version: int) -> str:
    """Returns how self-training shaped a version, with a comma before it; an empty text if it did not."""
    try:
        manifest = read_version_manifest(version)
    except ArtifactError:
        return ""
    if facts := manifest.get("trained", {}).get("self_training"):
        return f", self-trained with {facts['messages']:,} messages of {len(facts['batches'])} batches"
    if refused := manifest.get("self_trained_refused"):
        return f", trained on labelled messages alone, because the self-trained model was refused: {refused}"
    return ""


def _parse_time(value: Any, version: int) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError):
        raise ArtifactError(
            f"{version_folder(version) / MANIFEST}: exported_at: expected a time in ISO 8601, received {value!r}. "
            "Restore the file from a backup."
        ) from None


def _read_metrics(evaluation: str) -> dict[str, Any]:
    path = evaluation_folder(evaluation) / METRICS
    return read_json(path) if path.is_file() else {}
