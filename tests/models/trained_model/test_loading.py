"""Tests of writing and loading a trained model, and of errors if its parts do not belong together."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from models.errors import ArtifactError
from models.inference.scorer import network_logits
from models.network.network import LINEAR, LOGIT
from models.settings import NetworkSettings, TextSettings, TrainingSettings, VocabularySettings
from models.statistics.calibration import UNSEEN_SCORES, Calibration, fit_calibration, to_probabilities
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import Vocabulary, build_vocabulary, save_vocabulary
from models.trained_model.description import (
    DESCRIPTION,
    VOCABULARY,
    UnseenScores,
    collect_unseen_scores,
    write_trained_model,
)
from models.trained_model.loading import load_trained_model
from models.training.checkpoints import CHECKPOINTS, list_checkpoints, weights_sha256
from models.training.epoch_limit import EpochLimit
from models.training.job import LabelledMessages
from models.training.loop import TrainingResult, train

# As in `start_tensorflow`: otherwise TensorFlow lists every value of an unreadable checkpoint when Python exits.
logging.getLogger("tensorflow").setLevel("ERROR")

NETWORK = NetworkSettings(cell="simple", bidirectional=False, embedding_size=3, rnn_units=2, ngram_buckets=32)
VOCABULARY_TEXTS = ["free win now", "call me now"]


def vocabulary(messages: list[str] = VOCABULARY_TEXTS) -> Vocabulary:
    return build_vocabulary(messages, VocabularySettings(min_count=1), TextSettings())


def messages() -> LabelledMessages:
    return LabelledMessages(["free win", "call me"] * 5, np.tile(np.array([1, 0], np.int32), 5))


def mislabelled() -> LabelledMessages:
    """Returns messages with wrong labels: the validation loss gets worse with training."""
    return LabelledMessages(messages().texts, 1 - messages().labels)


def training_settings(seed: int) -> TrainingSettings:
    return TrainingSettings(epochs=2, batch_size=4, seed=seed, augmentation=0.0)


def compute_logits(network: keras.Model) -> np.ndarray:
    return network_logits(network, encode_messages(TextEncoder(vocabulary(), NETWORK.ngram_vectors), messages().texts))


def write_model(result: TrainingResult, folder: Path) -> dict[str, Any]:
    """Writes a trained model with the scores of the validation messages."""
    unseen = collect_unseen_scores(result.summarize(), messages(), None)
    return write_trained_model(result.summarize(), vocabulary(), NETWORK, unseen, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained")
    result = train(messages(), messages(), vocabulary(), NETWORK, training_settings(2), folder)
    assert result.best_epoch == 2
    return folder, result, write_model(result, folder)


@pytest.fixture
def folder(trained: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained[0], tmp_path / "training"))


def test_a_written_model_can_be_loaded(trained: tuple[Path, TrainingResult, dict[str, Any]]) -> None:
    folder, result, description = trained
    model = load_trained_model(folder)
    assert weights_sha256(result.network) == description["weights_sha256"]
    scale, shift = (np.float32(description["calibration"][key]) for key in ("scale", "bias"))
    kernel, bias = result.network.get_layer(LOGIT).get_weights()
    weights, squares, offset = result.network.get_layer(LINEAR).get_weights()
    calibrated = {LOGIT: (kernel * scale, bias * scale + shift), LINEAR: (weights * scale, squares, offset * scale)}
    for layer, values in calibrated.items():
        for actual, expected in zip(model.network.get_layer(layer).get_weights(), values, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-6)
    for actual_layer, expected_layer in zip(model.network.layers, result.network.layers, strict=True):
        for actual, expected in zip(actual_layer.get_weights(), expected_layer.get_weights(), strict=True):
            assert actual_layer.name in calibrated or np.array_equal(actual, expected)
    assert model.vocabulary == vocabulary()
    assert model.checkpoint == result.checkpoint == description["checkpoint"]
    assert model.description == description


def read_tensors(path: Path) -> set[bytes]:
    """Reads the weights of the step from a checkpoint, by their names in the file."""
    reader = tf.train.load_checkpoint(str(path))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    # The trainable variables of the network are stored once, under the optimizer, which refers to them too.
    of_step = [name for name in names if name.startswith(("model/", "optimizer/_trainable_variables/"))]
    return {reader.get_tensor(name).tobytes() for name in of_step}


def test_the_weights_of_a_checkpoint_are_those_of_its_step_bit_by_bit(
    trained: tuple[Path, TrainingResult, dict[str, Any]],
) -> None:
    folder, result, description = trained
    last = load_trained_model(folder, result.checkpoint, calibrated=False)
    assert weights_sha256(last.network) == description["weights_sha256"]
    hashes = set()
    for name in list_checkpoints(folder / CHECKPOINTS):
        model = load_trained_model(folder, name, calibrated=False)
        assert model.checkpoint == name
        assert {weight.numpy().tobytes() for weight in model.network.weights} == read_tensors(
            folder / CHECKPOINTS / name
        )
        hashes.add(weights_sha256(model.network))
    assert len(hashes) == 2  # of two epochs; the last checkpoint has the weights of the better one


def test_the_last_checkpoint_by_its_name_gives_the_weights_of_the_model(
    trained: tuple[Path, TrainingResult, dict[str, Any]],
) -> None:
    folder, result, _ = trained
    assert weights_sha256(load_trained_model(folder, result.checkpoint).network) == weights_sha256(
        load_trained_model(folder).network
    )


def test_an_unknown_checkpoint_is_refused_and_the_error_lists_those_that_exist(folder: Path) -> None:
    names = list_checkpoints(folder / CHECKPOINTS)
    for name in ("ckpt-999", "../ckpt-1", ""):
        with pytest.raises(ArtifactError, match=f"there is no checkpoint {name}") as error:
            load_trained_model(folder, name)
        assert ", ".join(names) in str(error.value)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_damaged_checkpoint_by_its_name_is_refused_also_if_its_weights_are_intact(folder: Path, place: float) -> None:
    name = list_checkpoints(folder / CHECKPOINTS)[0]
    path = folder / CHECKPOINTS / f"{name}.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name}: the checkpoint is damaged .* no other one was used"):
        load_trained_model(folder, name)


def test_unseen_scores_are_written_with_calibrated_probabilities(
    trained: tuple[Path, TrainingResult, dict[str, Any]],
) -> None:
    folder, result, description = trained
    scores = pd.read_parquet(folder / UNSEEN_SCORES)
    assert scores["spam"].tolist() == [True, False] * 5
    np.testing.assert_array_equal(scores["logit"], compute_logits(result.network))
    calibrated = Calibration(**description["calibration"]).apply(scores["logit"])
    np.testing.assert_array_equal(scores["probability"], to_probabilities(calibrated))
    served = to_probabilities(compute_logits(load_trained_model(folder).network))
    np.testing.assert_allclose(served, scores["probability"], rtol=0, atol=2e-6)


def test_held_out_scores_come_before_those_of_the_validation_part(
    trained: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path
) -> None:
    _, result, _ = trained
    held_out = np.array([2.5, -1.5, 0.25], np.float32), LabelledMessages(["a", "b", "c"], np.array([1, 0, 0], np.int32))
    unseen = collect_unseen_scores(result.summarize(), messages(), held_out)
    assert unseen.logits[:3].tolist() == [2.5, -1.5, 0.25]
    np.testing.assert_array_equal(unseen.logits[3:], compute_logits(result.network))
    assert unseen.labels.tolist() == [1, 0, 0, *messages().labels.tolist()]
    write_trained_model(result.summarize(), vocabulary(), NETWORK, unseen, tmp_path)
    scores = pd.read_parquet(tmp_path / UNSEEN_SCORES)
    assert scores["logit"].tolist() == unseen.logits.tolist()
    assert scores["spam"].tolist() == unseen.labels.astype(bool).tolist()


def test_the_calibration_is_fitted_to_the_unseen_scores(
    trained: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    labels = (random.uniform(size=300) < 0.3).astype(np.int32)
    unseen = UnseenScores((3 * labels - 1 + random.normal(size=300)).astype(np.float32), labels)
    description = write_trained_model(trained[1].summarize(), vocabulary(), NETWORK, unseen, tmp_path)
    assert Calibration(**description["calibration"]) == fit_calibration(unseen.logits, labels)


def test_the_description_has_the_epoch_at_which_a_person_stopped_the_training(
    trained: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path
) -> None:
    assert "stopped_after_epoch" not in trained[2]
    limit = EpochLimit(tmp_path)
    limit.stop_after(2)
    unseen = collect_unseen_scores(trained[1].summarize(), messages(), None)
    description = write_trained_model(trained[1].summarize(), vocabulary(), NETWORK, unseen, tmp_path, limit)
    assert json.loads((tmp_path / DESCRIPTION).read_text())["stopped_after_epoch"] == 2
    assert description == {**trained[2], "stopped_after_epoch": 2}


def test_a_model_without_calibration_is_loaded_uncalibrated(folder: Path) -> None:
    change_description(lambda description: description.pop("calibration"))(folder)
    model = load_trained_model(folder)
    assert weights_sha256(model.network) == model.description["weights_sha256"]


def test_the_description_is_json_of_the_training(
    trained: tuple[Path, TrainingResult, dict[str, Any]],
) -> None:
    folder, result, description = trained
    assert json.loads((folder / DESCRIPTION).read_text()) == description
    assert NetworkSettings(**description["network"]) == NETWORK
    assert description["vocabulary_size"] == len(vocabulary())
    assert description["vocabulary_sha256"] == vocabulary().sha256()
    assert description["parameters"] == result.network.count_params()
    assert (description["best_epoch"], description["epochs"]) == (result.best_epoch, 2)


def test_a_moved_model_can_be_loaded(folder: Path, tmp_path: Path) -> None:
    sha256 = weights_sha256(load_trained_model(folder).network)
    moved = folder.rename(tmp_path / "elsewhere")
    assert weights_sha256(load_trained_model(moved).network) == sha256


def change_description(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Returns a function that changes the description in a folder."""

    def damage(folder: Path) -> None:
        description = json.loads((folder / DESCRIPTION).read_text())
        change(description)
        (folder / DESCRIPTION).write_text(json.dumps(description))

    return damage


def change_network(**settings: object) -> Callable[[Path], None]:
    return change_description(lambda description: description["network"].update(settings))


def replace_vocabulary(folder: Path) -> None:
    save_vocabulary(vocabulary(["free win now", "call you now"]), folder / VOCABULARY)


def replace_weights(folder: Path) -> None:
    """Replaces the checkpoints with those of a run with another seed, which have the same names."""
    shutil.rmtree(folder / CHECKPOINTS)
    train(messages(), messages(), vocabulary(), NETWORK, training_settings(1), folder)


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another vocabulary": (replace_vocabulary, "the vocabulary does not belong to model.json: expected SHA-256"),
    "another run's weights": (replace_weights, "is not the one of model.json (expected weights of SHA-256"),
    "a vocabulary changed by hand": (
        lambda folder: (folder / VOCABULARY).write_text((folder / VOCABULARY).read_text().replace('"win"', '"won"')),
        "changed by hand?",
    ),
    "no vocabulary": (lambda folder: (folder / VOCABULARY).unlink(), "vocabulary.json: expected a vocabulary"),
    "another vocabulary in the description": (
        change_description(lambda description: description.update(vocabulary_sha256="0" * 64)),
        "the vocabulary",
    ),
    "other weights in the description": (
        change_description(lambda description: description.update(weights_sha256="0" * 64)),
        "ckpt-7 is not the one of model.json",
    ),
    "other units": (change_network(rnn_units=7), "can be used"),
    "another cell": (change_network(cell="gru"), "can be used"),
    "both directions": (change_network(bidirectional=True), "can be used"),
    "other n-grams": (change_network(ngram_buckets=16), "can be used"),
    "no linear part": (change_network(linear=False), "ckpt-7"),
    "an unknown network setting": (change_network(layers=2), "layers"),
    "no network": (change_description(lambda description: description.pop("network")), "it has no network"),
    "no fingerprint": (
        change_description(lambda description: description.pop("weights_sha256")),
        "it has no weights_sha256",
    ),
    "a calibration that reverses the ranking": (
        change_description(lambda description: description["calibration"].update(scale=-1.0)),
        "expected a scale from 0.01 to 10",
    ),
    "a calibration that is not a number": (
        change_description(lambda description: description.update(calibration={"bias": "x"})),
        "but",
    ),
    "a calibration of another kind": (
        change_description(lambda description: description.update(calibration={"degree": 2})),
        "degree",
    ),
    "no description": (lambda folder: (folder / DESCRIPTION).unlink(), "no such file"),
    "a truncated description": (lambda folder: (folder / DESCRIPTION).write_text("{"), "expected a description"),
    "a description that is a list": (lambda folder: (folder / DESCRIPTION).write_text("[]"), "expected a description"),
    "a description that is null": (lambda folder: (folder / DESCRIPTION).write_text("null"), "expected a description"),
    "a checkpoint that is a number": (
        change_description(lambda description: description.update(checkpoint=7)),
        "its checkpoint is not text: 7",
    ),
    "no checkpoint": (lambda folder: shutil.rmtree(folder / CHECKPOINTS), "ckpt-7 is missing"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_parts_that_do_not_belong_together_are_refused(folder: Path, fault: str) -> None:
    damage, expected = REFUSALS[fault]
    damage(folder)
    with pytest.raises(ArtifactError) as error:
        load_trained_model(folder)
    assert expected in str(error.value)
    assert str(folder) in str(error.value)


def damage_latest(change: Callable[[Path, Path], object]) -> Callable[[Path], None]:
    """Returns a function that damages the index and the data of the last checkpoint."""

    def damage(folder: Path) -> None:
        latest = folder / CHECKPOINTS / json.loads((folder / DESCRIPTION).read_text())["checkpoint"]
        change(latest.with_suffix(".index"), latest.with_suffix(".data-00000-of-00001"))

    return damage


def use_first_epoch(index: Path, data: Path) -> None:
    """Replaces the checkpoint with a valid one of the same training, saved when other weights were the best."""
    for path in (index, data):
        shutil.copy(min(path.parent.glob(f"ckpt-3{path.suffix}")), path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated data": (damage_latest(lambda _, data: data.write_bytes(data.read_bytes()[:-9])), "is damaged ("),
    "empty data": (damage_latest(lambda _, data: data.write_bytes(b"")), "is damaged ("),
    "missing data": (damage_latest(lambda _, data: data.unlink()), "is damaged ("),
    "truncated index": (damage_latest(lambda index, _: index.write_bytes(index.read_bytes()[:-9])), "is damaged ("),
    "empty index": (damage_latest(lambda index, _: index.write_bytes(b"")), "is damaged ("),
    "missing index": (damage_latest(lambda index, _: index.unlink()), "is missing;"),
    "both missing": (damage_latest(lambda index, data: (index.unlink(), data.unlink())), "is missing;"),
    "of another step": (damage_latest(use_first_epoch), "is not the one of model.json ("),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_without_the_latest_checkpoint_the_weights_are_the_same_and_a_warning_names_both(
    folder: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    damage, message = DAMAGES[case]
    expected = weights_sha256(load_trained_model(folder).network)
    damage(folder)
    with caplog.at_level(logging.WARNING, "spamscore"):
        model = load_trained_model(folder)
    assert weights_sha256(model.network) == expected
    (warning,) = (record.getMessage() for record in caplog.records)
    assert f"checkpoint {folder / CHECKPOINTS / 'ckpt-7'} {message}" in warning
    assert warning.endswith("; falling back to ckpt-6")
    assert model.checkpoint == "ckpt-6"


def test_the_best_weights_are_loaded_from_a_checkpoint_saved_with_other_current_weights(tmp_path: Path) -> None:
    result = train(messages(), mislabelled(), vocabulary(), NETWORK, training_settings(1), tmp_path)
    assert result.best_epoch == 1
    write_model(result, tmp_path)
    expected = weights_sha256(load_trained_model(tmp_path).network)
    (tmp_path / CHECKPOINTS / "ckpt-7.data-00000-of-00001").write_bytes(b"")
    model = load_trained_model(tmp_path)
    assert (weights_sha256(model.network), model.checkpoint) == (expected, "ckpt-6")


def test_no_flipped_bit_in_the_checkpoints_changes_a_weight(folder: Path) -> None:
    rng = random.Random(11)
    files = sorted((folder / CHECKPOINTS).iterdir())
    assert len(files) == 7
    expected = weights_sha256(load_trained_model(folder).network)
    for _ in range(60):
        path = rng.choice(files)
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged if rng.random() < 0.7 else damaged[: rng.randrange(len(damaged))])
        model = load_trained_model(folder)
        assert weights_sha256(model.network) == expected
        path.write_bytes(content)


def test_loading_is_refused_if_no_checkpoint_has_the_best_weights(folder: Path) -> None:
    for number in (6, 7):
        (folder / CHECKPOINTS / f"ckpt-{number}.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ArtifactError, match="ckpt-3 is not the one of model"):
        load_trained_model(folder)
