"""Tests of weights as NumPy arrays: an exact round trip, and errors for files that do not fit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from models.errors import ArtifactError, StorageError
from models.network.network import build_network
from models.network.weights import list_weights, read_weights, write_weights
from models.settings import NetworkSettings
from models.training.checkpoints import weights_sha256

ARCHITECTURE = NetworkSettings(cell="gru", embedding_size=3, rnn_units=2, ngram_buckets=16, ngram_vectors=16)


TOKENS = ("<padding>", "<unknown>", "win", "naïve", "🎁", "URL")


def network(seed: int = 0, architecture: NetworkSettings = ARCHITECTURE, vocabulary_size: int = 6) -> keras.Model:
    return build_network(architecture, vocabulary_size, seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_weights(network(1), tmp_path / "weights.npz", TOKENS, calibrated=False)
    return tmp_path / "weights.npz"


@pytest.mark.parametrize("cell", ["gru", "lstm", "simple"])
def test_weights_are_the_same_after_a_round_trip(tmp_path: Path, cell: str) -> None:
    architecture = NetworkSettings(cell=cell, embedding_size=3, rnn_units=2, ngram_buckets=16, ngram_vectors=16)
    written, read = network(1, architecture), network(2, architecture)
    write_weights(written, tmp_path / "weights.npz", TOKENS, calibrated=True)
    read_weights(read, tmp_path / "weights.npz")
    assert weights_sha256(read) == weights_sha256(written)


def test_numpy_reads_the_weights_by_name(path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        markers = {"spamscore:calibrated", "spamscore:vocabulary"}
        assert set(arrays.files) == {weight.path for weight in network().weights} | markers
        assert arrays["embedding/words"].shape == (6, 3)
        assert all(arrays[name].dtype == np.float32 for name in set(arrays.files) - markers)


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_file_says_whether_its_weights_are_calibrated_and_has_the_tokens_of_its_rows(
    tmp_path: Path, calibrated: bool
) -> None:
    write_weights(network(), tmp_path / "weights.npz", TOKENS, calibrated)
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as arrays:
        marker, tokens = arrays["spamscore:calibrated"], arrays["spamscore:vocabulary"]
    assert (marker.dtype, marker.shape, bool(marker)) == (np.bool_, (), calibrated)
    assert tokens.tolist() == list(TOKENS)


def test_weights_of_an_older_version_without_markers_are_read(path: Path) -> None:
    change_arrays(path, lambda arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("spamscore:")])
    target = network(2)
    read_weights(target, path)
    assert weights_sha256(target) == weights_sha256(network(1))


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "weights.npz", tmp_path / "folder"):
        with pytest.raises(StorageError, match="the weights cannot be written") as error:
            write_weights(network(), path, TOKENS, calibrated=False)
        assert str(path) in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_weights_are_listed_with_shape_norm_and_number_of_parameters() -> None:
    target = network(1)
    listed = list_weights(target)
    assert [weight.path for weight in listed] == [variable.path for variable in target.weights]
    words = next(weight for weight in listed if weight.path == "embedding/words")
    assert (words.shape, words.dtype, words.parameters) == ((6, 3), "float32", 18)
    values = target.get_layer("embedding").words.numpy().astype(np.float64)
    assert words.norm == pytest.approx(np.sqrt((values**2).sum()), rel=1e-12)
    assert sum(weight.parameters for weight in listed) == target.count_params()


def other_network(**changes: object) -> keras.Model:
    return network(architecture=dataclasses.replace(ARCHITECTURE, **changes))


@pytest.mark.parametrize(
    ("other", "weight"),
    [
        (lambda: network(vocabulary_size=7), "embedding/words"),
        (lambda: other_network(embedding_size=4), "embedding/"),
        (lambda: other_network(rnn_units=5), "logit/kernel"),
        (lambda: other_network(cell="lstm"), "recurrent/"),
        (lambda: other_network(bidirectional=False), "logit/kernel"),
        (lambda: other_network(ngram_vectors=8), "embedding/ngrams"),
    ],
    ids=["vocabulary", "embedding", "units", "cell", "directions", "n-grams"],
)
def test_weights_of_another_network_are_refused_and_the_error_names_a_weight(
    path: Path, other: Callable[[], keras.Model], weight: str
) -> None:
    target = other()
    before = weights_sha256(target)
    with pytest.raises(ArtifactError, match="belongs to another network") as error:
        read_weights(target, path)
    assert str(path) in str(error.value)
    assert f"weight {weight}" in str(error.value)
    assert weights_sha256(target) == before


def change_arrays(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    change(content)
    np.savez(path, **content)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda arrays: arrays.pop("logit/bias"), "weight logit/bias: expected float32 (1,), received no such weight"),
        (
            lambda arrays: arrays.update(extra=np.zeros(2)),
            "weight extra: expected no such weight, received float64 (2,)",
        ),
        (lambda arrays: arrays.update({"logit/bias": np.zeros(1)}), "expected float32 (1,), received float64 (1,)"),
        (lambda arrays: arrays.update({"logit/bias": np.array(["x"], object)}), "expected weights as .npz"),
    ],
    ids=["one missing", "one more", "another type", "pickled"],
)
def test_a_file_that_does_not_fit_is_refused_and_the_error_says_why(
    path: Path, change: Callable[[dict], object], expected: str
) -> None:
    change_arrays(path, change)
    with pytest.raises(ArtifactError) as error:
        read_weights(network(), path)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04 cut", b"\x80\x04N."], ids=["empty", "text", "zip", "pickle"]
)
def test_a_file_that_is_not_an_archive_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="expected weights as"):
        read_weights(network(), path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "one.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ArtifactError, match="expected weights as"):
        read_weights(network(), tmp_path / "one.npz")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        read_weights(network(), tmp_path / "weights.npz")


def test_no_damage_goes_undetected(path: Path) -> None:
    original, expected, target = path.read_bytes(), weights_sha256(network(1)), network(2)
    rng = random.Random(5)
    for _ in range(150):
        damaged = bytearray(original)
        if rng.random() < 0.3:
            damaged = damaged[: rng.randrange(len(damaged))]
        else:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read_weights(target, path)
        except ArtifactError:
            continue
        assert weights_sha256(target) == expected
