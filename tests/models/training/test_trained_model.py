"""A trained model on disk: found again whole, refused where its parts do not belong together."""

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

from models.errors import ArtifactError
from models.inference.scorer import network_logits
from models.network.network import LINEAR, LOGIT
from models.settings import NetworkSettings, TextSettings, TrainingSettings, VocabularySettings
from models.statistics.calibration import UNSEEN_SCORES, Calibration, fit_calibration, to_probabilities
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import Vocabulary, build_vocabulary, save_vocabulary
from models.training.checkpoints import weights_sha256
from models.training.epoch_limit import EpochLimit
from models.training.loop import CHECKPOINTS, LabelledMessages, TrainingResult, train
from models.training.trained_model import (
    DESCRIPTION,
    VOCABULARY,
    UnseenScores,
    collect_unseen_scores,
    load_trained_model,
    write_trained_model,
)

# As `start_tensorflow` has it: for a checkpoint that could not be read TensorFlow lists every value when Python ends.
logging.getLogger("tensorflow").setLevel("ERROR")

NETWORK = NetworkSettings(cell="simple", bidirectional=False, embedding_size=3, rnn_units=2, ngram_buckets=32)
VOCABULARY_OF = ["free win now", "call me now"]


def vocabulary(messages: list[str] = VOCABULARY_OF) -> Vocabulary:
    return build_vocabulary(messages, VocabularySettings(min_count=1), TextSettings())


def messages() -> LabelledMessages:
    return LabelledMessages(["free win", "call me"] * 5, np.tile(np.array([1, 0], np.int32), 5))


def mislabelled() -> LabelledMessages:
    """Validated with these, the more is learnt the worse it gets."""
    return LabelledMessages(messages().texts, 1 - messages().labels)


def settings_of(seed: int) -> TrainingSettings:
    return TrainingSettings(epochs=2, batch_size=4, seed=seed, augmentation=0.0)


def logits_by(network: keras.Model) -> np.ndarray:
    return network_logits(network, encode_messages(TextEncoder(vocabulary(), NETWORK.ngram_buckets), messages().texts))


def described_unseen(trained: TrainingResult, folder: Path) -> dict[str, Any]:
    """Describes a training by the messages it was validated with."""
    unseen = collect_unseen_scores(trained, vocabulary(), NETWORK, messages(), None)
    return write_trained_model(trained, vocabulary(), NETWORK, unseen, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained")
    trained = train(messages(), messages(), vocabulary(), NETWORK, settings_of(2), folder)
    assert trained.best_epoch == 2
    return folder, trained, described_unseen(trained, folder)


@pytest.fixture
def folder(whole: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole[0], tmp_path / "training"))


def test_what_was_trained_is_loaded(whole: tuple[Path, TrainingResult, dict[str, Any]]) -> None:
    folder, trained, description = whole
    model = load_trained_model(folder)
    assert weights_sha256(trained.network) == description["weights_sha256"]
    scale, shift = (np.float32(description["calibration"][key]) for key in ("scale", "bias"))
    kernel, bias = trained.network.get_layer(LOGIT).get_weights()
    weights, squares, offset = trained.network.get_layer(LINEAR).get_weights()
    calibrated = {LOGIT: (kernel * scale, bias * scale + shift), LINEAR: (weights * scale, squares, offset * scale)}
    for layer, values in calibrated.items():
        for found, expected in zip(model.network.get_layer(layer).get_weights(), values, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    for found, expected in zip(model.network.layers, trained.network.layers, strict=True):
        for one, other in zip(found.get_weights(), expected.get_weights(), strict=True):
            assert found.name in calibrated or np.array_equal(one, other)
    assert model.vocabulary == vocabulary()
    assert model.checkpoint == trained.checkpoint == description["checkpoint"]
    assert model.description == description


def test_scores_of_unseen_messages_are_kept_as_the_calibrated_network_gives_them(
    whole: tuple[Path, TrainingResult, dict[str, Any]],
) -> None:
    folder, trained, description = whole
    kept = pd.read_parquet(folder / UNSEEN_SCORES)
    assert kept["spam"].tolist() == [True, False] * 5
    np.testing.assert_array_equal(kept["logit"], logits_by(trained.network))
    calibrated = Calibration(**description["calibration"]).apply(kept["logit"])
    np.testing.assert_array_equal(kept["probability"], to_probabilities(calibrated))
    served = to_probabilities(logits_by(load_trained_model(folder).network))
    np.testing.assert_allclose(served, kept["probability"], rtol=0, atol=2e-6)


def test_held_out_scores_come_before_those_of_the_validation_part(
    whole: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path
) -> None:
    _, trained, _ = whole
    held_out = np.array([2.5, -1.5, 0.25], np.float32), LabelledMessages(["a", "b", "c"], np.array([1, 0, 0], np.int32))
    unseen = collect_unseen_scores(trained, vocabulary(), NETWORK, messages(), held_out)
    assert unseen.logits[:3].tolist() == [2.5, -1.5, 0.25]
    np.testing.assert_array_equal(unseen.logits[3:], logits_by(trained.network))
    assert unseen.labels.tolist() == [1, 0, 0, *messages().labels.tolist()]
    write_trained_model(trained, vocabulary(), NETWORK, unseen, tmp_path)
    kept = pd.read_parquet(tmp_path / UNSEEN_SCORES)
    assert kept["logit"].tolist() == unseen.logits.tolist()
    assert kept["spam"].tolist() == unseen.labels.astype(bool).tolist()


def test_the_calibration_is_that_of_the_unseen_messages(
    whole: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    labels = (random.uniform(size=300) < 0.3).astype(np.int32)
    unseen = UnseenScores((3 * labels - 1 + random.normal(size=300)).astype(np.float32), labels)
    description = write_trained_model(whole[1], vocabulary(), NETWORK, unseen, tmp_path)
    assert Calibration(**description["calibration"]) == fit_calibration(unseen.logits, labels)


def test_the_description_tells_of_a_training_that_a_person_stopped(
    whole: tuple[Path, TrainingResult, dict[str, Any]], tmp_path: Path
) -> None:
    assert "stopped_after_epoch" not in whole[2]
    limit = EpochLimit(tmp_path)
    limit.stop_after(2)
    unseen = collect_unseen_scores(whole[1], vocabulary(), NETWORK, messages(), None)
    described = write_trained_model(whole[1], vocabulary(), NETWORK, unseen, tmp_path, limit)
    assert json.loads((tmp_path / DESCRIPTION).read_text())["stopped_after_epoch"] == 2
    assert described == {**whole[2], "stopped_after_epoch": 2}


def test_a_model_of_before_there_was_calibration_is_loaded_as_it_was_trained(folder: Path) -> None:
    described(lambda one: one.pop("calibration"))(folder)
    model = load_trained_model(folder)
    assert weights_sha256(model.network) == model.description["weights_sha256"]


def test_the_description_is_json_that_tells_what_was_trained(
    whole: tuple[Path, TrainingResult, dict[str, Any]],
) -> None:
    folder, trained, description = whole
    assert json.loads((folder / DESCRIPTION).read_text()) == description
    assert NetworkSettings(**description["network"]) == NETWORK
    assert description["vocabulary_size"] == len(vocabulary())
    assert description["vocabulary_sha256"] == vocabulary().sha256()
    assert description["parameters"] == trained.network.count_params()
    assert (description["best_epoch"], description["epochs"]) == (trained.best_epoch, 2)


def test_a_model_loads_from_where_it_was_moved_to(folder: Path, tmp_path: Path) -> None:
    sha256 = weights_sha256(load_trained_model(folder).network)
    moved = folder.rename(tmp_path / "elsewhere")
    assert weights_sha256(load_trained_model(moved).network) == sha256


def described(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes the description of a folder."""

    def damage(folder: Path) -> None:
        description = json.loads((folder / DESCRIPTION).read_text())
        change(description)
        (folder / DESCRIPTION).write_text(json.dumps(description))

    return damage


def of_network(**settings: object) -> Callable[[Path], None]:
    return described(lambda description: description["network"].update(settings))


def other_vocabulary(folder: Path) -> None:
    save_vocabulary(vocabulary(["free win now", "call you now"]), folder / VOCABULARY)


def other_weights(folder: Path) -> None:
    """The checkpoints of a run with another seed, under the same names."""
    shutil.rmtree(folder / CHECKPOINTS)
    train(messages(), messages(), vocabulary(), NETWORK, settings_of(1), folder)


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another vocabulary": (other_vocabulary, "the vocabulary does not belong to model.json: expected SHA-256"),
    "another run's weights": (other_weights, "is not that of model.json (expected weights of SHA-256"),
    "a vocabulary changed by hand": (
        lambda folder: (folder / VOCABULARY).write_text((folder / VOCABULARY).read_text().replace('"win"', '"won"')),
        "changed by hand?",
    ),
    "no vocabulary": (lambda folder: (folder / VOCABULARY).unlink(), "vocabulary.json: expected a vocabulary"),
    "another vocabulary named": (described(lambda one: one.update(vocabulary_sha256="0" * 64)), "the vocabulary"),
    "other weights named": (
        described(lambda one: one.update(weights_sha256="0" * 64)),
        "ckpt-7 is not that of model.json",
    ),
    "other units": (of_network(rnn_units=7), "can be used"),
    "another cell": (of_network(cell="gru"), "can be used"),
    "both directions": (of_network(bidirectional=True), "can be used"),
    "other n-grams": (of_network(ngram_buckets=16), "can be used"),
    "no linear part": (of_network(linear=False), "ckpt-7"),
    "a linear part without n-grams": (of_network(ngram_buckets=0), "expected ngram_buckets of at least 1"),
    "an unknown network setting": (of_network(layers=2), "layers"),
    "no network": (described(lambda one: one.pop("network")), "it has no network"),
    "no fingerprint": (described(lambda one: one.pop("weights_sha256")), "it has no weights_sha256"),
    "a calibration that turns the ranking": (
        described(lambda one: one["calibration"].update(scale=-1.0)),
        "expected a scale from 0.01 to 10",
    ),
    "a calibration that is no number": (described(lambda one: one.update(calibration={"bias": "x"})), "but"),
    "a calibration of another kind": (described(lambda one: one.update(calibration={"degree": 2})), "degree"),
    "no description": (lambda folder: (folder / DESCRIPTION).unlink(), "no such file"),
    "a description cut short": (lambda folder: (folder / DESCRIPTION).write_text("{"), "expected a description"),
    "a description that is none": (lambda folder: (folder / DESCRIPTION).write_text("[]"), "expected a description"),
    "null for a description": (lambda folder: (folder / DESCRIPTION).write_text("null"), "expected a description"),
    "a checkpoint that is a number": (described(lambda one: one.update(checkpoint=7)), "its checkpoint is no text: 7"),
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


def of_latest(change: Callable[[Path, Path], object]) -> Callable[[Path], None]:
    """Does something to the index and the data of the checkpoint that the training ended with."""

    def damage(folder: Path) -> None:
        latest = folder / CHECKPOINTS / json.loads((folder / DESCRIPTION).read_text())["checkpoint"]
        change(latest.with_suffix(".index"), latest.with_suffix(".data-00000-of-00001"))

    return damage


def first_epoch_s(index: Path, data: Path) -> None:
    """A whole checkpoint of the same training, from when other weights were the best."""
    for path in (index, data):
        shutil.copy(min(path.parent.glob(f"ckpt-3{path.suffix}")), path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "data cut": (of_latest(lambda _, data: data.write_bytes(data.read_bytes()[:-9])), "is damaged ("),
    "data empty": (of_latest(lambda _, data: data.write_bytes(b"")), "is damaged ("),
    "data gone": (of_latest(lambda _, data: data.unlink()), "is damaged ("),
    "index cut": (of_latest(lambda index, _: index.write_bytes(index.read_bytes()[:-9])), "is damaged ("),
    "index empty": (of_latest(lambda index, _: index.write_bytes(b"")), "is damaged ("),
    "index gone": (of_latest(lambda index, _: index.unlink()), "is missing;"),
    "both gone": (of_latest(lambda index, data: (index.unlink(), data.unlink())), "is missing;"),
    "another step's": (of_latest(first_epoch_s), "is not that of model.json ("),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_without_the_latest_checkpoint_the_weights_are_the_same_to_the_bit_and_both_are_named(
    folder: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    damage, said = DAMAGES[case]
    expected = weights_sha256(load_trained_model(folder).network)
    damage(folder)
    with caplog.at_level(logging.WARNING, "spamscore"):
        model = load_trained_model(folder)
    assert weights_sha256(model.network) == expected
    (warning,) = (record.getMessage() for record in caplog.records)
    assert f"checkpoint {folder / CHECKPOINTS / 'ckpt-7'} {said}" in warning
    assert warning.endswith("; going on from ckpt-6")
    assert model.checkpoint == "ckpt-6"


def test_the_best_weights_are_found_in_a_checkpoint_saved_when_the_network_had_others(tmp_path: Path) -> None:
    trained = train(messages(), mislabelled(), vocabulary(), NETWORK, settings_of(1), tmp_path)
    assert trained.best_epoch == 1
    described_unseen(trained, tmp_path)
    expected = weights_sha256(load_trained_model(tmp_path).network)
    (tmp_path / CHECKPOINTS / "ckpt-7.data-00000-of-00001").write_bytes(b"")
    model = load_trained_model(tmp_path)
    assert (weights_sha256(model.network), model.checkpoint) == (expected, "ckpt-6")


def test_no_bit_flipped_anywhere_among_the_checkpoints_changes_a_weight(folder: Path) -> None:
    dice = random.Random(11)
    files = sorted((folder / CHECKPOINTS).iterdir())
    assert len(files) == 7
    expected = weights_sha256(load_trained_model(folder).network)
    for _ in range(60):
        path = dice.choice(files)
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged if dice.random() < 0.7 else damaged[: dice.randrange(len(damaged))])
        model = load_trained_model(folder)
        assert weights_sha256(model.network) == expected
        path.write_bytes(content)


def test_where_only_weights_that_were_not_the_best_are_left_loading_is_refused(folder: Path) -> None:
    for number in (6, 7):
        (folder / CHECKPOINTS / f"ckpt-{number}.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ArtifactError, match="ckpt-3 is not that of model"):
        load_trained_model(folder)
