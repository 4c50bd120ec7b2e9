"""The source of a warm start: where it is found, its part of the fingerprint, what is refused, and warnings."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import ArtifactError, SpamscoreError, WarmStartError
from models.network.weights import CALIBRATED_MARKER, write_weights
from models.settings import NetworkSettings, TextSettings, TrainingSettings
from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from models.trained_model.description import collect_unseen_scores, write_trained_model
from models.trained_model.loading import load_trained_model
from models.training.job import LabelledMessages
from models.training.loop import train
from models.training.warm_start import WarmStart
from tasks.artifacts.folders import write_manifest
from tasks.artifacts.warm_start import load_warm_start, start_fingerprint
from tasks.train_model import TrainModel

NETWORK = NetworkSettings(
    cell="simple", bidirectional=False, embedding_size=3, rnn_units=2, ngram_buckets=32, ngram_vectors=16
)
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, "free", "win", "call", "mum"), (0, 0, 4, 3, 2, 1), TextSettings())
GROWN = Vocabulary((*SPECIAL_TOKENS, "mum", "new", "free", "win", "call"), (0, 0, 5, 4, 3, 2, 1), TextSettings())
MESSAGES = LabelledMessages(["free win", "call mum"] * 8, np.tile(np.array([1, 0], np.int32), 8))
SPLIT = {"validation_share": 0.15, "test_share": 0.15, "salt": ""}
TRAINING, EXPORT = "artifacts/training/t1", "artifacts/exports/spam_ham/3"
RAW = "raw.npz"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training, version 3 that was exported from it, and its uncalibrated weights as a file."""
    logging.getLogger("tensorflow").setLevel("ERROR")
    folder = tmp_path_factory.mktemp("template")
    training, export = folder / TRAINING, folder / EXPORT
    training.mkdir(parents=True)
    settings = TrainingSettings(epochs=2, batch_size=4, seed=2, augmentation=0.0, checkpoint_steps=3)
    result = train(MESSAGES, MESSAGES, VOCABULARY, NETWORK, settings, training).summarize()
    unseen = collect_unseen_scores(result, MESSAGES, None)
    description = write_trained_model(result, VOCABULARY, NETWORK, unseen, training)
    write_manifest(training, {**description, "made_of": {"inputs": ["m1", "v1"]}})
    messages = folder / "artifacts" / "messages" / "m1"
    messages.mkdir(parents=True)
    write_manifest(messages, {"made_of": {"settings": {"split": SPLIT}}})
    (export / "assets.extra").mkdir(parents=True)
    (export / "saved_model.pb").touch()
    # As an older version exported it: the file does not say that it is calibrated.
    calibrated = {v.path: v.numpy() for v in load_trained_model(training).network.weights}
    np.savez(export / "assets.extra" / "weights.npz", **calibrated)
    write_manifest(
        export, {"version": 3, "fingerprint": "f", "training": "t1", "evaluation": "e", "trained": description}
    )
    write_weights(load_trained_model(training, calibrated=False).network, folder / RAW, VOCABULARY.tokens, False)
    return folder


@pytest.fixture(autouse=True)
def folder(template: Path, tmp_path: Path, set_settings: Callable[..., None]) -> Path:
    """A copy in the working folder."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path


def add_entries(path: Path, entries: dict[str, np.ndarray]) -> None:
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    np.savez(path, **{**content, **entries})


def fingerprint(start_from: str, start_variables: str = "all") -> dict[str, Any]:
    return start_fingerprint(TrainingSettings(start_from=start_from, start_variables=start_variables))


def load_start(
    start_from: str, vocabulary: Vocabulary = GROWN, split: dict[str, Any] = SPLIT, folds: int = 3
) -> WarmStart:
    start = load_warm_start(TrainingSettings(start_from=start_from, held_out_folds=folds), NETWORK, vocabulary, split)
    assert start is not None
    return start


# Fingerprint


def test_without_a_source_the_fingerprint_of_a_training_has_nothing_new() -> None:
    assert start_fingerprint(TrainingSettings()) == {}
    parts = TrainModel().fingerprint_parts()
    assert parts.keys() == {"stage", "code_version", "settings", "inputs"}
    assert parts["settings"]["training"].keys() == {
        "learning_rate", "batch_size", "epochs", "patience", "label_smoothing", "augmentation", "held_out_folds",
        "seed",
    }  # fmt: skip


def test_the_same_weights_have_the_same_fingerprint_whatever_their_name(folder: Path) -> None:
    shutil.copytree(TRAINING, folder / "elsewhere" / "old")
    shutil.copy(RAW, "copy.npz")
    assert fingerprint("version:3") == fingerprint(TRAINING) == fingerprint("elsewhere/old")
    assert fingerprint(RAW) == fingerprint(str(folder / "copy.npz"))
    assert fingerprint(f"{TRAINING}/checkpoints/ckpt-8") == fingerprint(f"{TRAINING}/checkpoints/ckpt-8.index")


def test_other_content_and_other_variables_have_another_fingerprint() -> None:
    before = fingerprint(RAW)
    add_entries(Path(RAW), {"logit/bias": np.ones(1, np.float32)})
    after = fingerprint(RAW)
    others = [
        fingerprint("version:3"),
        fingerprint("version:3", "embedding/*"),
        fingerprint(f"{TRAINING}/checkpoints/ckpt-6"),
        fingerprint(f"{TRAINING}/checkpoints/ckpt-8"),
    ]
    distinct = {json.dumps(parts) for parts in (before, after, *others)}
    assert len(distinct) == 6
    assert fingerprint("version:3", "embedding/*, logit/*") == fingerprint("version:3", "logit/*,embedding/*,logit/*")


def test_the_source_is_part_of_the_fingerprint_of_the_training(set_settings: Callable[..., None]) -> None:
    without = TrainModel().fingerprint()
    set_settings("training", start_from="version:3")
    by_version = TrainModel().fingerprint()
    set_settings("training", start_from=TRAINING)
    assert TrainModel().fingerprint() == by_version != without


# Sources


@pytest.mark.parametrize(
    "start_from",
    ["version:3", TRAINING, f"{TRAINING}/checkpoints/ckpt-3", f"{TRAINING}/checkpoints/ckpt-8.index", RAW],
)
def test_each_kind_of_source_gives_the_uncalibrated_weights_by_token(
    start_from: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "spamscore")
    match = re.search(r"ckpt-\d+", start_from)
    network = load_trained_model(Path(TRAINING), match[0] if match else None, calibrated=False).network
    raw = {variable.path: variable.numpy() for variable in network.weights}
    start = load_start(start_from)
    assert len(start.variables) == len(raw) - 3  # without the linear part
    for path, variable in start.variables.items():
        expected = raw[path] if variable.rows is None else raw[path][[0, 1, 5, 2, 3, 4]]
        np.testing.assert_array_equal(variable.values, expected)
    assert f"starting from {start_from}" in caplog.text
    assert "6 of 7 rows of embedding/words, the other 1 start fresh" in caplog.text
    assert "the held-out folds start from random weights" in caplog.text
    record = start.record()
    assert record["source"] == start_from
    assert any(key.endswith("_sha256") for key in record)


def test_a_file_of_another_program_is_taken_as_uncalibrated_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with np.load(RAW) as arrays:
        content = {name: arrays[name] for name in arrays.files if not name.startswith("spamscore:")}
    np.savez("theirs.npz", **content)
    start = load_start("theirs.npz", VOCABULARY)
    assert start.token_rows == (6, 6)
    assert "theirs.npz: it does not say whether its weights are calibrated" in caplog.text
    assert "matched by their place" in caplog.text
    with pytest.raises(ArtifactError, match="the vocabulary is needed"):
        load_start("theirs.npz", GROWN)


def break_file(path: str, content: bytes = b"{}") -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(content) and None


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copy(folder / source, folder / target) and None


def nothing(_folder: Path) -> None:
    return


def flip_last_bit(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / path).read_bytes())
        content[-1] ^= 1
        (folder / path).write_bytes(content)

    return change


CHECKPOINT = f"{TRAINING}/checkpoints/ckpt-8"
REFUSED: dict[str, tuple[str, Callable[[Path], None], type[SpamscoreError], str]] = {
    "no such version": ("version:9", nothing, WarmStartError, r"start_from = version:9.*there are: 3"),
    "a version that is no number": ("version:new", nothing, WarmStartError, r"expected version:N.*no such file"),
    "no such file": ("w.npz", nothing, WarmStartError, r"start_from = w\.npz: expected.*no such file or folder"),
    "a file of another kind": ("w.h5", break_file("w.h5"), WarmStartError, "a file of another kind"),
    "the folder of an export": (EXPORT, nothing, WarmStartError, "the folder of an exported version; write version:3"),
    "an unfinished training": (
        TRAINING, remove(f"{TRAINING}/manifest.json"), WarmStartError, "not the folder of a finished training",
    ),
    "another folder": ("artifacts", nothing, WarmStartError, "not the folder of a finished training"),
    "no such checkpoint": (
        f"{TRAINING}/checkpoints/ckpt-7", nothing, WarmStartError, r"no such checkpoint; .*: ckpt-3, ckpt-4",
    ),
    "a damaged checkpoint": (
        CHECKPOINT, flip_last_bit(f"{CHECKPOINT}.data-00000-of-00001"), ArtifactError, "ckpt-8: .* damaged",
    ),
    "a changed description": (TRAINING, break_file(f"{TRAINING}/model.json"), ArtifactError, r"model\.json"),
    "a changed vocabulary": (TRAINING, break_file(f"{TRAINING}/vocabulary.json"), ArtifactError, r"vocabulary\.json"),
    "a version whose training is gone": ("version:3", remove(TRAINING), ArtifactError, "no longer exists"),
    "a damaged file": (RAW, break_file(RAW, b"PK\x03\x04"), ArtifactError, r"raw\.npz: expected weights as \.npz"),
    "the weights of an export": (
        f"{EXPORT}/assets.extra/weights.npz", nothing, WarmStartError, "its weights are calibrated",
    ),
    "a copy of the weights of an export": (
        "w.npz", copy(f"{EXPORT}/assets.extra/weights.npz", "w.npz"), WarmStartError, "its weights are calibrated",
    ),
    "a file that says it is calibrated": (
        RAW, lambda folder: add_entries(folder / RAW, {CALIBRATED_MARKER: np.array(True)}), WarmStartError,
        "its weights are calibrated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_source_that_cannot_be_used_is_refused_and_the_error_says_why(case: str, folder: Path) -> None:
    start_from, damage, kind, expected = REFUSED[case]
    damage(folder)
    with pytest.raises(kind, match=f"(?s){expected}"):
        load_start(start_from)


# Leaks


def forget_messages(folder: Path) -> None:
    shutil.rmtree(folder / "artifacts" / "messages")


def start_from_unknown(folder: Path) -> None:
    manifest = json.loads((folder / TRAINING / "manifest.json").read_text())
    content = {key: value for key, value in manifest.items() if key not in ("files", "manifest_sha256")}
    write_manifest(folder / TRAINING, {**content, "start": {"split": "unknown"}})


@pytest.mark.parametrize(
    ("start_from", "change", "split", "expected"),
    [
        ("version:3", nothing, SPLIT, "same"),
        ("version:3", nothing, {**SPLIT, "salt": "x"}, "other"),
        ("version:3", forget_messages, SPLIT, "unknown"),
        (TRAINING, start_from_unknown, SPLIT, "unknown"),
        (RAW, nothing, SPLIT, "unknown"),
    ],
    ids=["the same split", "another salt", "messages deleted", "a source of an unknown source", "a file"],
)
def test_a_source_that_may_know_the_test_part_is_warned_of_and_recorded(
    start_from: str, change: Callable[[Path], None], split: dict[str, Any], expected: str, folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    change(folder)
    assert load_start(start_from, split=split).record()["split"] == expected
    assert ("it may know messages of the validation and the test part" in caplog.text) == (expected != "same")
