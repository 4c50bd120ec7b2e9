"""Artifacts that were damaged, edited by hand or replaced by another are detected by their reader, and never used.

Each test has a copy of a folder in which the whole chain ran. The stages that read the artifacts run in this process,
so that TensorFlow is started once. The output of commands is tested with the commands themselves.
"""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import luigi as luigi_package
import pytest
from chain import DATE, SMALL, CommandResult, environment, luigi, query

from models.errors import ArtifactError
from tasks.artifacts.exports import put_in_service
from tasks.artifacts.folders import write_manifest
from tasks.artifacts.trainings import load_trained_model, verified_training_folder
from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.evaluate_model import EvaluateModel
from tasks.export_model import ExportModel
from tasks.score_batch import ScoreBatch
from tasks.train_model import TrainModel

SCORES = "select message_id, spam_probability, flagged from published_scores order by message_id"
SPAMSCORE = Path(sys.executable).with_name("spamscore")
SetSettings = Callable[..., None]


@pytest.fixture
def artifacts(finished: tuple[Path, CommandResult], tmp_path: Path, set_settings: SetSettings) -> Path:
    """The artifacts of a copy in the working folder, without a database."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("spamscore.db*"):
        path.unlink()
    for section, values in SMALL.items():
        set_settings(section, **values)
    return tmp_path / "artifacts"


def find_path(pattern: str, artifacts: Path) -> Path:
    """Returns the only path of the artifacts that matches a pattern."""
    (path,) = artifacts.glob(pattern)
    return path


def replace_text(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    """Replaces a text in a file, as with an editor."""

    def change(artifacts: Path) -> None:
        path = find_path(pattern, artifacts)
        text = path.read_text(encoding="utf-8")
        assert text.count(old) >= 1
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def copy_file(source: str, target: str) -> Callable[[Path], None]:
    return lambda artifacts: Path(shutil.copy(find_path(source, artifacts), find_path(target, artifacts))).touch()


def flip_bit(pattern: str) -> Callable[[Path], None]:
    """Flips one bit in the middle of a file; its size does not change."""

    def change(artifacts: Path) -> None:
        path = find_path(pattern, artifacts)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return change


def rebuild(stage: type[luigi_package.Task], folder: str) -> Callable[[Path], None]:
    """Deletes the result of a stage and runs it again, as after a change of its settings."""

    def read(artifacts: Path) -> None:
        shutil.rmtree(artifacts / folder)
        stage().run()

    return read


def score_batch(_artifacts: Path) -> None:
    list(ScoreBatch(date=datetime.date.fromisoformat(DATE)).run())


def put_version_in_service(_artifacts: Path) -> None:
    put_in_service(1)


def find_training(_artifacts: Path) -> None:
    verified_training_folder(1)


def load_training(artifacts: Path) -> None:
    load_trained_model(find_path("training/*", artifacts))


clean_text = rebuild(CleanText, "messages")
build_vocabulary = rebuild(BuildVocabulary, "vocabulary")
train_model = rebuild(TrainModel, "training")
evaluate_model = rebuild(EvaluateModel, "evaluation")
export_model = rebuild(ExportModel, "exports")

VERSION = "exports/spam_ham/1"
# The change of the artifacts, the reader that detects it, and a text of the error.
CHANGES: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "a count of the corpus": (
        replace_text("corpus/*/manifest.json", '"rows": ', '"rows": 1'),
        clean_text,
        "manifest",
    ),
    "a setting the corpus is of": (
        replace_text("corpus/*/manifest.json", '"bundled"', '"file"'),
        clean_text,
        "manifest",
    ),
    "a bit of the corpus": (flip_bit("corpus/*/corpus.parquet"), clean_text, "corpus.parquet: not the file"),
    "test messages for training": (
        copy_file("messages/*/test.parquet", "messages/*/training.parquet"),
        build_vocabulary,
        "training.parquet",
    ),
    "a bit of the training part": (
        flip_bit("messages/*/training.parquet"),
        train_model,
        "training.parquet: not the file",
    ),
    "a count of the parts": (
        replace_text("messages/*/manifest.json", '"spam": 1', '"spam": 2'),
        evaluate_model,
        "manifest",
    ),
    "a code version": (
        replace_text("messages/*/manifest.json", '"code_version": ', '"code_version": 9'),
        evaluate_model,
        "manifest",
    ),
    "a count of a token": (
        replace_text("vocabulary/*/vocabulary.json", "]", "1]"),
        train_model,
        "vocabulary.json: not the file",
    ),
    "a count in the trained model's vocabulary": (
        replace_text("training/*/vocabulary.json", '"<padding>", 0]', '"<padding>", 7]'),
        evaluate_model,
        "vocabulary.json: not the",
    ),
    "the pooling of the network": (
        replace_text("training/*/model.json", '"max+mean"', '"last"'),
        evaluate_model,
        "model.json: not the file",
    ),
    "the fingerprint of the weights": (
        replace_text("training/*/model.json", '"weights_sha256": "', '"weights_sha256": "0'),
        load_training,
        "model.json",
    ),
    "the history": (replace_text("training/*/history.csv", "1", "2"), evaluate_model, "history.csv: not the file"),
    "an approval": (
        replace_text("evaluation/*/metrics.json", "true", "false"),
        export_model,
        "metrics.json: not the file",
    ),
    "a count of the snapshot": (
        replace_text("snapshots/*/*/manifest.json", '"rows": 4', '"rows": 5'),
        score_batch,
        "manifest",
    ),
    "a bit of the snapshot": (
        flip_bit("snapshots/*/*/messages.parquet"),
        score_batch,
        "not the snapshot that was written",
    ),
    "the graph of the version": (flip_bit(f"{VERSION}/saved_model.pb"), score_batch, "saved_model.pb: not the file"),
    "the variables of the version": (
        flip_bit(f"{VERSION}/variables/*.data*"),
        put_version_in_service,
        "variables/variables.data",
    ),
    "the vocabulary of the version": (
        replace_text(f"{VERSION}/assets/vocabulary.txt", "a", "b"),
        put_version_in_service,
        "assets/vocabulary.txt",
    ),
    "the arrays of the version": (
        flip_bit(f"{VERSION}/assets.extra/weights.npz"),
        find_training,
        "weights.npz: not the file",
    ),
    "the training of the version": (
        replace_text(f"{VERSION}/manifest.json", '"training": "', '"training": "0'),
        find_training,
        "manifest",
    ),
    "the number of the version": (
        replace_text(f"{VERSION}/manifest.json", '"version": 1', '"version": 2'),
        find_training,
        "manifest",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_artifact_is_refused_by_its_reader_with_the_way_out(artifacts: Path, change: str) -> None:
    damage, read, message = CHANGES[change]
    damage(artifacts)
    with pytest.raises(ArtifactError) as error:
        read(artifacts)
    assert message in str(error.value)
    assert "expected" in str(error.value)
    assert "received" in str(error.value)
    assert "from a backup; or " in str(error.value)


def make_other_training(artifacts: Path) -> Path:
    """Makes a complete training of other settings, next to the one in service."""
    path = find_path("training/*", artifacts)
    other = Path(shutil.copytree(path, path.with_name("0" * 16)))
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    manifest = {key: value for key, value in manifest.items() if key not in ("files", "manifest_sha256")}
    write_manifest(other, {**manifest, "fingerprint": other.name, "weights_sha256": "0" * 64})
    return other


def test_a_training_that_replaces_another_is_refused(artifacts: Path) -> None:
    other, path = make_other_training(artifacts), verified_training_folder(1)
    shutil.rmtree(path)
    shutil.copytree(other, path)
    with pytest.raises(ArtifactError, match=f"expected the manifest of {path.name}, received that of {other.name}"):
        verified_training_folder(1)


def test_a_training_whose_weights_are_not_those_of_the_version_is_refused(artifacts: Path) -> None:
    other, path = make_other_training(artifacts), verified_training_folder(1)
    shutil.rmtree(path)
    shutil.copytree(other, path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    entries = {key: value for key, value in manifest.items() if key not in ("files", "manifest_sha256")}
    write_manifest(path, {**entries, "fingerprint": path.name})
    with pytest.raises(ArtifactError, match=r"does not belong to version 1 .*expected weights_sha256 .*, received 0"):
        verified_training_folder(1)


def test_a_version_copied_over_another_is_refused(artifacts: Path) -> None:
    exports = artifacts / "exports" / "spam_ham"
    shutil.copytree(exports / "1", exports / "2")
    with pytest.raises(ArtifactError, match=r"2/manifest.json: version: expected 2, received 1"):
        put_in_service(2)


def test_a_version_still_belongs_to_its_training_after_the_training_is_repeated(artifacts: Path) -> None:
    path = verified_training_folder(1)
    before = (path / "history.csv").read_text()
    train_model(artifacts)
    assert (path / "history.csv").read_text() != before  # the seconds differ
    assert verified_training_folder(1) == path


def test_a_damaged_folder_is_not_changed(artifacts: Path) -> None:
    CHANGES["a count of a token"][0](artifacts)
    before = {path: path.read_bytes() for path in artifacts.glob("vocabulary/*/*")}
    assert BuildVocabulary().complete()
    with pytest.raises(ArtifactError):
        train_model(artifacts)
    assert {path: path.read_bytes() for path in artifacts.glob("vocabulary/*/*")} == before


def test_a_batch_scored_with_the_second_latest_checkpoint_has_the_same_bits(
    finished: tuple[Path, CommandResult], artifacts: Path
) -> None:
    latest = sorted(artifacts.glob("training/*/checkpoints/*.index"), key=lambda path: int(path.stem[5:]))[-2:]
    data = latest[1].with_suffix(".data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-100])
    done = luigi(artifacts.parent, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    assert f"{latest[1].stem} is damaged" in done.output
    assert f"; falling back to {latest[0].stem}" in done.output
    assert query(artifacts.parent, SCORES) == query(finished[0], SCORES)
    ((checkpoint,),) = query(artifacts.parent, "select checkpoint from score_batches")
    assert str(checkpoint).endswith(f"/{latest[0].stem}")


def test_without_an_undamaged_checkpoint_a_batch_fails_with_one_line(artifacts: Path) -> None:
    for path in artifacts.glob("training/*/checkpoints/*.index"):
        path.write_bytes(b"")
    done = luigi(artifacts.parent, "ScoreBatch", "--date", DATE)
    assert done.code == 30
    assert "checkpoints can be used" in done.last_line
    assert "run TrainModel again" in done.last_line
    assert "Traceback" not in done.output
    assert query(artifacts.parent, "select count(*) from score_batches") == [(0,)]


def test_a_snapshot_edited_by_hand_fails_the_run_with_one_line(artifacts: Path) -> None:
    CHANGES["a count of the snapshot"][0](artifacts)
    done = luigi(artifacts.parent, "ScoreBatch", "--date", DATE)
    assert done.code == 30
    assert "manifest.json: not the manifest that was written" in done.last_line
    assert "Traceback" not in done.output


@pytest.mark.parametrize("command", [("text", "hello"), ("models",), ("serve", "1", "--yes")])
def test_the_command_line_refuses_a_version_edited_by_hand_with_one_line(
    artifacts: Path, command: tuple[str, ...]
) -> None:
    CHANGES["the training of the version"][0](artifacts)
    done = subprocess.run(
        [SPAMSCORE, *command], cwd=artifacts.parent, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "1/manifest.json: not the manifest that was written" in done.stderr
    assert "Traceback" not in done.stderr
