"""What is known of each exported version of the model: what ExportModel and EvaluateModel wrote down about it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from models.errors import ArtifactError
from tasks.artifacts.exports import list_versions, read_version_manifest, version_folder, version_in_service
from tasks.artifacts.folders import MANIFEST, read_json
from tasks.artifacts.locations import METRICS, evaluation_folder


@dataclass(frozen=True)
class ExportedVersion:
    """A version of the model. Figures are of the test part, None where the evaluation is gone.

    Attributes:
        version: its number.
        in_service: whether the next batch is scored with it.
        exported_at: when it was exported, UTC.
        pr_auc: area under the precision-recall curve.
        mcc: Matthews correlation coefficient.
        training: fingerprint that names the folder of its checkpoints.
        folder: where it is.
        threshold: from which it flagged when it was exported; None of a version of before that was written down.
        approved: whether EvaluateModel approved it, or a person overruled that; None as above.
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


def exported_versions() -> list[ExportedVersion]:
    """All versions, the newest first.

    Raises:
        ArtifactError: what was written about one is missing or damaged.
    """
    in_service = version_in_service()
    return [_described(version, version == in_service) for version in reversed(list_versions())]


def _described(version: int, in_service: bool) -> ExportedVersion:
    manifest = read_version_manifest(version)
    figures = _figures(str(manifest.get("evaluation")))
    exported_at = manifest.get("exported_at")
    return ExportedVersion(
        version=version,
        in_service=in_service,
        exported_at=_time(exported_at, version) if exported_at else None,
        pr_auc=figures.get("pr_auc"),
        mcc=figures.get("mcc"),
        training=manifest.get("training"),
        folder=str(version_folder(version)),
        threshold=(manifest.get("threshold") or {}).get("value"),
        approved=(manifest.get("judged") or {}).get("approved"),
    )


def _time(written: Any, version: int) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(written).astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError):
        raise ArtifactError(
            f"{version_folder(version) / MANIFEST}: exported_at: expected a time in ISO 8601, received {written!r}. "
            "Bring the file back from a backup."
        ) from None


def _figures(evaluation: str) -> dict[str, Any]:
    path = evaluation_folder(evaluation) / METRICS
    return read_json(path) if path.is_file() else {}
