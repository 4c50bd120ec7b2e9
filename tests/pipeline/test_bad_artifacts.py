"""What was damaged, changed by hand or put in the place of another is noticed by its reader, and never scored with.

Each test has a copy of a folder in which the whole chain ran. The stages that read are run in this process, so that
TensorFlow is started once; what a person sees at the end of a command is tested with the command itself.
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
from tasks.artifacts.trainings import trained_model
from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.evaluate_model import EvaluateModel, training_folder
from tasks.export_model import ExportModel
from tasks.score_batch import ScoreBatch
from tasks.train_model import TrainModel

SCORES = "select message_id, spam_probability, flagged from published_scores order by message_id"
SPAMSCORE = Path(sys.executable).with_name("spamscore")
SetSettings = Callable[..., None]


@pytest.fixture
def artifacts(finished: tuple[Path, CommandResult], tmp_path: Path, set_settings: SetSettings) -> Path:
    """The artifacts of a copy that is the working folder of this process too; nothing is scored in it yet."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("spamscore.db*"):
        path.unlink()
    for section, values in SMALL.items():
        set_settings(section, **values)
    return tmp_path / "artifacts"


def one(pattern: str, artifacts: Path) -> Path:
    """The one path of a pattern, below the artifacts."""
    (path,) = artifacts.glob(pattern)
    return path


def replaced(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    """Changes a text file as a person with an editor does."""

    def change(artifacts: Path) -> None:
        path = one(pattern, artifacts)
        text = path.read_text(encoding="utf-8")
        assert text.count(old) >= 1
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def copied(source: str, target: str) -> Callable[[Path], None]:
    return lambda artifacts: Path(shutil.copy(one(source, artifacts), one(target, artifacts))).touch()


def flipped(pattern: str) -> Callable[[Path], None]:
    """Flips one bit in the middle of a file, whose size stays."""

    def change(artifacts: Path) -> None:
        path = one(pattern, artifacts)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return change


def rebuilt(stage: type[luigi_package.Task], folder: str) -> Callable[[Path], None]:
    """Runs a stage again whose result is gone, as after its settings changed."""

    def read(artifacts: Path) -> None:
        shutil.rmtree(artifacts / folder)
        stage().run()

    return read


def scored(_artifacts: Path) -> None:
    ScoreBatch(date=datetime.date.fromisoformat(DATE)).run()


def served(_artifacts: Path) -> None:
    put_in_service(1)


def named(_artifacts: Path) -> None:
    training_folder(1)


def loaded(artifacts: Path) -> None:
    trained_model(one("training/*", artifacts))


cleaned = rebuilt(CleanText, "messages")
counted = rebuilt(BuildVocabulary, "vocabulary")
trained = rebuilt(TrainModel, "training")
evaluated = rebuilt(EvaluateModel, "evaluation")
exported = rebuilt(ExportModel, "exports")

VERSION = "exports/spam_ham/1"
# What is done to the artifacts, who reads them, and what of it is named.
CHANGES: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "a count of the corpus": (replaced("corpus/*/manifest.json", '"rows": 694', '"rows": 695'), cleaned, "manifest"),
    "a setting the corpus is of": (replaced("corpus/*/manifest.json", '"bundled"', '"file"'), cleaned, "manifest"),
    "a bit of the corpus": (flipped("corpus/*/corpus.parquet"), cleaned, "corpus.parquet: not the file"),
    "test messages for training": (
        copied("messages/*/test.parquet", "messages/*/training.parquet"),
        counted,
        "training.parquet",
    ),
    "a bit of the training part": (flipped("messages/*/training.parquet"), trained, "training.parquet: not the file"),
    "a count of the parts": (replaced("messages/*/manifest.json", '"spam": 1', '"spam": 2'), evaluated, "manifest"),
    "a code version": (
        replaced("messages/*/manifest.json", '"code_version": ', '"code_version": 9'),
        evaluated,
        "manifest",
    ),
    "a count of a token": (
        replaced("vocabulary/*/vocabulary.json", "]", "1]"),
        trained,
        "vocabulary.json: not the file",
    ),
    "a count in the trained model's vocabulary": (
        replaced("training/*/vocabulary.json", '"<padding>", 0]', '"<padding>", 7]'),
        evaluated,
        "vocabulary.json: not the",
    ),
    "the pooling of the network": (
        replaced("training/*/model.json", '"max+mean"', '"last"'),
        evaluated,
        "model.json: not the file",
    ),
    "the fingerprint of the weights": (
        replaced("training/*/model.json", '"weights_sha256": "', '"weights_sha256": "0'),
        loaded,
        "model.json",
    ),
    "the history": (replaced("training/*/history.csv", "1", "2"), evaluated, "history.csv: not the file"),
    "an approval": (replaced("evaluation/*/metrics.json", "true", "false"), exported, "metrics.json: not the file"),
    "a count of the snapshot": (replaced("snapshots/*/*/manifest.json", '"rows": 4', '"rows": 5'), scored, "manifest"),
    "a bit of the snapshot": (flipped("snapshots/*/*/messages.parquet"), scored, "not the snapshot that was written"),
    "the graph of the version": (flipped(f"{VERSION}/saved_model.pb"), scored, "saved_model.pb: not the file"),
    "the variables of the version": (flipped(f"{VERSION}/variables/*.data*"), served, "variables/variables.data"),
    "the vocabulary of the version": (
        replaced(f"{VERSION}/assets/vocabulary.txt", "a", "b"),
        served,
        "assets/vocabulary.txt",
    ),
    "the arrays of the version": (flipped(f"{VERSION}/assets.extra/weights.npz"), named, "weights.npz: not the file"),
    "the training of the version": (
        replaced(f"{VERSION}/manifest.json", '"training": "', '"training": "0'),
        named,
        "manifest",
    ),
    "the number of the version": (
        replaced(f"{VERSION}/manifest.json", '"version": 1', '"version": 2'),
        named,
        "manifest",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused_by_its_reader_with_the_way_out(artifacts: Path, change: str) -> None:
    damage, read, said = CHANGES[change]
    damage(artifacts)
    with pytest.raises(ArtifactError) as error:
        read(artifacts)
    assert said in str(error.value)
    assert "expected" in str(error.value)
    assert "received" in str(error.value)
    assert "Bring it back from a backup; or delete" in str(error.value)


def other_training(artifacts: Path) -> Path:
    """The training of other settings, finished, beside the one in service."""
    path = one("training/*", artifacts)
    other = Path(shutil.copytree(path, path.with_name("0" * 16)))
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    manifest = {key: value for key, value in manifest.items() if key not in ("files", "manifest_sha256")}
    write_manifest(other, {**manifest, "fingerprint": other.name, "weights_sha256": "0" * 64})
    return other


def test_a_training_in_the_place_of_another_is_refused(artifacts: Path) -> None:
    other, path = other_training(artifacts), training_folder(1)
    shutil.rmtree(path)
    shutil.copytree(other, path)
    with pytest.raises(ArtifactError, match=f"expected the manifest of {path.name}, received that of {other.name}"):
        training_folder(1)


def test_a_training_whose_weights_are_not_those_of_the_version_is_refused(artifacts: Path) -> None:
    other, path = other_training(artifacts), training_folder(1)
    shutil.rmtree(path)
    shutil.copytree(other, path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in manifest.items() if key not in ("files", "manifest_sha256")}
    write_manifest(path, {**kept, "fingerprint": path.name})
    with pytest.raises(ArtifactError, match=r"does not belong to version 1 .*expected weights_sha256 .*, received 0"):
        training_folder(1)


def test_a_version_copied_over_another_is_refused(artifacts: Path) -> None:
    exports = artifacts / "exports" / "spam_ham"
    shutil.copytree(exports / "1", exports / "2")
    with pytest.raises(ArtifactError, match=r"2/manifest.json: version: expected 2, received 1"):
        scored(artifacts)


def test_the_version_of_a_training_made_again_still_belongs_to_it(artifacts: Path) -> None:
    path = training_folder(1)
    before = (path / "history.csv").read_text()
    trained(artifacts)
    assert (path / "history.csv").read_text() != before  # the seconds differ
    assert training_folder(1) == path


def test_a_damaged_folder_is_neither_made_again_nor_touched(artifacts: Path) -> None:
    CHANGES["a count of a token"][0](artifacts)
    before = {path: path.read_bytes() for path in artifacts.glob("vocabulary/*/*")}
    assert BuildVocabulary().complete()
    with pytest.raises(ArtifactError):
        trained(artifacts)
    assert {path: path.read_bytes() for path in artifacts.glob("vocabulary/*/*")} == before


def test_a_batch_scored_without_the_latest_checkpoint_has_the_same_scores_to_the_bit(
    finished: tuple[Path, CommandResult], artifacts: Path
) -> None:
    latest = sorted(artifacts.glob("training/*/checkpoints/*.index"), key=lambda path: int(path.stem[5:]))[-2:]
    data = latest[1].with_suffix(".data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-100])
    done = luigi(artifacts.parent, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    assert f"{latest[1].stem} is damaged" in done.output
    assert f"; going on from {latest[0].stem}" in done.output
    assert query(artifacts.parent, SCORES) == query(finished[0], SCORES)
    ((checkpoint,),) = query(artifacts.parent, "select checkpoint from score_batches")
    assert str(checkpoint).endswith(f"/{latest[0].stem}")


def test_a_batch_without_any_whole_checkpoint_is_refused_in_one_line(artifacts: Path) -> None:
    for path in artifacts.glob("training/*/checkpoints/*.index"):
        path.write_bytes(b"")
    done = luigi(artifacts.parent, "ScoreBatch", "--date", DATE)
    assert done.code == 30
    assert "checkpoints can be used" in done.last_line
    assert "run TrainModel again" in done.last_line
    assert "Traceback" not in done.output
    assert query(artifacts.parent, "select count(*) from score_batches") == [(0,)]


def test_a_snapshot_changed_by_hand_ends_the_run_in_one_line(artifacts: Path) -> None:
    CHANGES["a count of the snapshot"][0](artifacts)
    done = luigi(artifacts.parent, "ScoreBatch", "--date", DATE)
    assert done.code == 30
    assert "manifest.json: not the manifest that was written" in done.last_line
    assert "Traceback" not in done.output


@pytest.mark.parametrize("command", [("text", "hello"), ("models",), ("serve", "1", "--yes")])
def test_the_command_line_refuses_a_version_changed_by_hand_in_one_line(
    artifacts: Path, command: tuple[str, ...]
) -> None:
    CHANGES["the training of the version"][0](artifacts)
    done = subprocess.run(
        [SPAMSCORE, *command], cwd=artifacts.parent, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "1/manifest.json: not the manifest that was written" in done.stderr
    assert "Traceback" not in done.stderr
