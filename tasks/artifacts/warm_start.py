"""Finds and reads the weights that [training] start_from names: an exported version, a .npz file, a training.

The content of the source is part of a training's fingerprint, not its name: the same weights in another folder give the
same training.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ArtifactError, WarmStartError
from models.settings import NetworkSettings, TrainingSettings
from tasks.artifacts.exports import exports_folder, read_version_manifest
from tasks.artifacts.fingerprint import file_sha256
from tasks.artifacts.folders import MANIFEST, read_manifest
from tasks.artifacts.locations import MESSAGES
from tasks.artifacts.trainings import load_trained_model, verified_training_folder
from tasks.scheduler.failures import record_note

if TYPE_CHECKING:
    from models.text.vocabulary import Vocabulary
    from models.training.warm_start import SourceWeights, WarmStart

log = logging.getLogger("spamscore")
_VERSION = re.compile(r"version:(\d+)")
_CHECKPOINT = re.compile(r"(ckpt-\d+)(\.index|\.data-\d{5}-of-\d{5})?")
_EXPORTED_WEIGHTS = Path("assets.extra", "weights.npz")


def start_fingerprint(settings: TrainingSettings) -> dict[str, Any]:
    """Returns what a fingerprint contains of the start of a training: nothing if it starts from random weights.

    Raises:
        WarmStartError: there is no source of that name.
        ArtifactError: the source is damaged.
    """
    if not settings.start_from:
        return {}
    return {"start": {**_hash_source(settings.start_from), "variables": sorted(set(settings.start_patterns))}}


def load_warm_start(
    settings: TrainingSettings, network: NetworkSettings, vocabulary: Vocabulary, split: Mapping[str, Any]
) -> WarmStart | None:
    """Loads what a training starts from, and logs what is taken; None if it starts from random weights.

    Warns if the source may have been trained on messages of the validation or test part.

    Args:
        settings: the source, and the variables to take.
        network: the architecture of the network.
        vocabulary: the vocabulary of the training.
        split: the values of [split] with which the messages of this training were split.

    Raises:
        WarmStartError: there is no source of that name, it is calibrated, or the variables are not among its own.
        ArtifactError: the source is damaged, or does not fit the network.
    """
    if not settings.start_from:
        return None
    from models.network.network import build_network
    from models.training.warm_start import plan_warm_start

    hashes = _hash_source(settings.start_from)
    weights, folder = _read_source(settings.start_from)
    shapes = {variable.path: tuple(variable.shape) for variable in build_network(network, len(vocabulary)).weights}
    start = plan_warm_start(weights, shapes, vocabulary.tokens, settings.start_patterns)
    for line in start.describe():
        log.info("%s", line)
    if settings.held_out_folds:
        log.info("the held-out folds start from random weights: %s may know their messages", settings.start_from)
    origin = {**hashes, "split": _compare_split(folder, split)}
    if origin["split"] != "same":
        _warn_of_split(settings.start_from, origin["split"])
    return dataclasses.replace(start, origin=origin)


def _hash_source(name: str) -> dict[str, str]:
    """Returns hashes of the content of a source. Reads no weights: this is called whenever a stage is checked."""
    if version := _VERSION.fullmatch(name):
        manifest = _read_version(name, int(version[1]))["trained"]
    else:
        path, checkpoint = _locate(name)
        if path.is_file():
            return {"file_sha256": _hash_file(path)}
        manifest = read_manifest(path)
        if checkpoint:
            hashes = [_hash_file(file) for file in _list_checkpoint_files(path, checkpoint)]
            return {"checkpoint_sha256": " ".join(hashes), "vocabulary_sha256": str(manifest["vocabulary_sha256"])}
    return {key: str(manifest[key]) for key in ("weights_sha256", "vocabulary_sha256")}


def _read_source(name: str) -> tuple[SourceWeights, Path | None]:
    """Returns the weights of a source, and the folder of its training; None if it is a file."""
    from models.training.warm_start import network_source

    checkpoint = None
    if version := _VERSION.fullmatch(name):
        folder = verified_training_folder(int(version[1]))
        if not (folder / MANIFEST).is_file():
            raise ArtifactError(
                f"[training] start_from = {name}: its training {folder} no longer exists, and the export has "
                "calibrated weights only. Restore the folder from a backup, or name another version."
            )
    else:
        folder, checkpoint = _locate(name)
        if folder.is_file():
            return _read_npz(folder), None
    model = load_trained_model(folder, checkpoint, calibrated=False)
    return network_source(name, model.network, model.vocabulary.tokens), folder


def _read_npz(path: Path) -> SourceWeights:
    from models.training.warm_start import calibrated_error, read_npz_source

    # Exports of older versions do not say in the file that they are calibrated.
    exported = [
        file for file in exports_folder().glob(f"*/{_EXPORTED_WEIGHTS}") if _hash_file(file) == _hash_file(path)
    ]
    if exported or path.absolute().parts[-2:] == _EXPORTED_WEIGHTS.parts:
        raise calibrated_error(str(path))
    source, is_marked = read_npz_source(path)
    if not is_marked:
        log.warning("%s: it does not say whether its weights are calibrated; they are taken as uncalibrated", path)
    if source.tokens is None:
        log.warning("%s: it has no vocabulary; rows of token vectors are matched by their place", path)
    return source


def _read_version(name: str, version: int) -> dict[str, Any]:
    try:
        manifest = read_version_manifest(version)
    except ArtifactError as error:
        raise WarmStartError(f"[training] start_from = {name}: {error}") from None
    if not isinstance(manifest.get("trained"), dict) or "weights_sha256" not in manifest["trained"]:
        raise ArtifactError(
            f"[training] start_from = {name}: its manifest does not say which weights it has. Name another version, or "
            "a folder of artifacts/training."
        )
    return manifest


def _locate(name: str) -> tuple[Path, str | None]:
    """Returns the .npz file or the folder of the training that a source names, and the name of its checkpoint."""
    path = Path(name).expanduser()
    if match := _CHECKPOINT.fullmatch(path.name):
        if not path.with_name(f"{match[1]}.index").is_file():
            existing = ", ".join(sorted(file.stem for file in path.parent.glob("ckpt-*.index"))) or "none"
            raise _source_error(name, f"no such checkpoint; in {path.parent} there are: {existing}")
        path, checkpoint = path.parent.parent, match[1]
    elif path.suffix == ".npz" and path.is_file():
        return path, None
    else:
        checkpoint = None
    if not path.exists():
        raise _source_error(name, f"no such file or folder (looked in {Path.cwd()})")
    if not path.is_dir():
        raise _source_error(name, "a file of another kind")
    if (path / "saved_model.pb").is_file():
        raise _source_error(name, f"the folder of an exported version; write version:{path.absolute().name}")
    if not (path / MANIFEST).is_file() or "weights_sha256" not in read_manifest(path):
        raise _source_error(name, f"{path}, which is not the folder of a finished training")
    return path, checkpoint


def _source_error(name: str, received: str) -> WarmStartError:
    return WarmStartError(
        f"[training] start_from = {name}: expected version:N of an exported version, a .npz file, the folder of a "
        f"finished training, or a checkpoint in it such as checkpoints/ckpt-72; received {received}."
    )


def _list_checkpoint_files(folder: Path, checkpoint: str) -> list[Path]:
    return sorted(path for path in (folder / "checkpoints").glob(f"{checkpoint}.*") if _CHECKPOINT.fullmatch(path.name))


def _hash_file(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}. Make it readable, or set another start_from.") from None


def _compare_split(folder: Path | None, split: Mapping[str, Any]) -> str:
    """Returns whether the messages of a source were split as those of this training: same, other or unknown.

    With the same [split], a message of the test part of this training was not in the training part of the source.
    """
    try:
        made_of = read_manifest(folder) if folder else {}
        earlier = made_of.get("start", {}).get("split", "same")
        messages = (folder or Path()).parent.parent / MESSAGES / made_of["made_of"]["inputs"][0]
        same = read_manifest(messages)["made_of"]["settings"]["split"] == split
    except (ArtifactError, LookupError, TypeError):
        return "unknown"
    return earlier if same else "other"


def _warn_of_split(name: str, split: str) -> None:
    reason = "was trained with another [split]" if split == "other" else "does not say how its messages were split"
    warning = (
        f"[training] start_from = {name}: the source {reason}, so it may know messages of the validation and the test "
        "part: calibration, threshold and the figures of EvaluateModel may be too good. Start from a version with the "
        "same [split], or measure the model on messages that the source has not seen."
    )
    log.warning("%s", warning)
    record_note(warning)
