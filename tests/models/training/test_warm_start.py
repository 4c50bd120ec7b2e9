"""The start from earlier weights: which variables and rows are taken, what stays fresh, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ArtifactError, SpamscoreError, WarmStartError
from models.network.network import build_network
from models.network.weights import write_weights
from models.settings import NetworkSettings, TextSettings, TrainingSettings
from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from models.training.checkpoints import weights_sha256
from models.training.job import LabelledMessages
from models.training.loop import train
from models.training.warm_start import (
    SourceWeights,
    WarmStart,
    network_source,
    plan_warm_start,
    read_npz_source,
    set_start,
)

NETWORK = NetworkSettings(
    cell="simple", bidirectional=False, embedding_size=3, rnn_units=2, ngram_buckets=32, ngram_vectors=16
)
TOKENS = (*SPECIAL_TOKENS, "free", "win", "call", "mum")
OTHER_TOKENS = (*SPECIAL_TOKENS, "mum", "new", "free")
SHAPES = {"embedding/words": (5, 3), "embedding/shapes": (3, 3), "logit/kernel": (4, 1), "linear/weights": (32,)}
PATHS = [variable.path for variable in build_network(NETWORK, 6).weights]


def source(**changes: Any) -> SourceWeights:
    random = np.random.default_rng(1)
    arrays = {path: random.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
    arrays["embedding/words"] = random.normal(size=(6, 3)).astype(np.float32)
    arrays.update(changes.pop("arrays", {}))
    return dataclasses.replace(SourceWeights("version:3", arrays, TOKENS), **changes)


def plan(weights: SourceWeights, *patterns: str, shapes: dict[str, tuple[int, ...]] = SHAPES) -> WarmStart:
    return plan_warm_start(weights, shapes, OTHER_TOKENS, patterns or ("all",))


def test_rows_of_token_vectors_are_matched_by_token_and_new_tokens_stay_fresh() -> None:
    weights = source()
    start = plan(weights)
    words = start.variables["embedding/words"]
    assert words.rows.tolist() == [0, 1, 2, 4]  # padding, unknown, mum, free
    np.testing.assert_array_equal(words.values, weights.arrays["embedding/words"][[0, 1, 5, 2]])
    assert start.token_rows == (4, 5)
    assert start.record()["token_rows_taken"] == 4
    assert start.record()["token_rows_fresh"] == 1


@given(st.lists(st.text(max_size=3), unique=True, max_size=8), st.lists(st.text(max_size=3), unique=True, max_size=8))
def test_every_token_that_both_vocabularies_have_keeps_its_vector(old: list[str], new: list[str]) -> None:
    array = np.arange(len(old) * 3, dtype=np.float32).reshape(len(old), 3)
    weights = SourceWeights("s", {"embedding/words": array}, old)
    start = plan_warm_start(weights, {"embedding/words": (len(new), 3)}, new, ("all",))
    words = np.full((len(new), 3), -1, np.float32)
    words[start.variables["embedding/words"].rows] = start.variables["embedding/words"].values
    for token, row in zip(new, words, strict=True):
        expected = array[old.index(token)] if token in old else np.full(3, -1)
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    ("patterns", "taken", "fresh", "fitted"),
    [
        (("all",), ["embedding/words", "embedding/shapes", "logit/kernel"], [], ["linear/weights"]),
        (("embedding/*",), ["embedding/words", "embedding/shapes"], ["logit/kernel"], ["linear/weights"]),
        (("logit/kernel", "linear/*"), ["logit/kernel", "linear/weights"], ["embedding/words", "embedding/shapes"], []),
        (("*",), list(SHAPES), [], []),
        (("old/kernel=logit/kernel",), ["old/kernel=logit/kernel"], ["embedding/words", "embedding/shapes"],
         ["linear/weights"]),
        (("all", "old/kernel = logit/kernel"), ["embedding/words", "embedding/shapes", "old/kernel=logit/kernel"], [],
         ["linear/weights"]),
    ],
    ids=["all", "a pattern", "the linear part by name", "everything", "a rename", "a rename over a pattern"],
)  # fmt: skip
def test_the_patterns_choose_the_variables(
    patterns: tuple[str, ...], taken: list[str], fresh: list[str], fitted: list[str]
) -> None:
    weights = source(arrays={"old/kernel": np.full((4, 1), 7.0, np.float32)})
    start = plan(weights, *patterns)
    record = start.record()
    assert (record["taken"], record["fresh"], record["fitted"]) == (taken, fresh, fitted)
    for path, variable in start.variables.items():
        if path != "embedding/words":
            np.testing.assert_array_equal(variable.values, weights.arrays[variable.source])
    assert all(path in " ".join(start.describe()) for path in SHAPES)


def test_variables_of_the_source_that_the_network_does_not_have_are_reported() -> None:
    start = plan(source(arrays={"recurrent/bias": np.zeros(2, np.float32)}))
    assert start.record()["unused"] == ["linear/weights", "recurrent/bias"]
    assert "not used of version:3: linear/weights, recurrent/bias" in start.describe()[1]


REFUSED: dict[str, tuple[SourceWeights, tuple[str, ...], type[SpamscoreError], tuple[str, ...]]] = {
    "another shape": (
        source(arrays={"logit/kernel": np.zeros((6, 1), np.float32)}), ("all",), ArtifactError,
        ("version:3: logit/kernel has the shape (6, 1), and logit/kernel of the network has (4, 1)", "[network]"),
    ),
    "a renamed variable of another shape": (
        source(), ("embedding/shapes=logit/kernel",), ArtifactError,
        ("embedding/shapes has the shape (3, 3), and logit/kernel of the network has (4, 1)",),
    ),
    "vectors of another length": (
        source(arrays={"embedding/words": np.zeros((6, 4), np.float32)}), ("all",), ArtifactError,
        ("embedding/words has the shape (6, 4), and embedding/words of the network has (5, 3)",),
    ),
    "a pattern that matches nothing": (
        source(), ("embeding/*",), WarmStartError,
        ("embeding/*", "version:3 has embedding/words, embedding/shapes", "the network has embedding/words"),
    ),
    "a rename of a variable that does not exist": (
        source(), ("kernel=logit/kernel",), WarmStartError, ("kernel: version:3 has no such variable",)
    ),
    "a rename to a variable that does not exist": (
        source(), ("logit/kernel=kernel",), WarmStartError, ("kernel: the network has no such variable",)
    ),
    "two variables for one": (
        source(), ("logit/kernel=logit/kernel", "linear/weights=logit/kernel"), WarmStartError,
        ("logit/kernel is given to two variables: logit/kernel and linear/weights",),
    ),
    "no vocabulary and other rows": (
        source(tokens=None), ("all",), ArtifactError,
        ("the vocabulary is needed", "(6, 3)", "(5, 3)", "spamscore:vocabulary"),
    ),
    "fewer tokens than rows": (
        source(tokens=TOKENS[:5]), ("all",), ArtifactError, ("received 6 rows and 5 tokens",)
    ),
    "a repeated token": (
        source(tokens=(*TOKENS[:5], "free")), ("all",), ArtifactError, ("5 distinct tokens",)
    ),
    "numbers that are not finite": (
        source(arrays={"logit/kernel": np.full((4, 1), np.nan, np.float32)}), ("all",), ArtifactError,
        ("version:3: logit/kernel", "NaN"),
    ),
    "integers": (
        source(arrays={"logit/kernel": np.zeros((4, 1), np.int64)}), ("all",), ArtifactError,
        ("expected an array of floats, received int64 (4, 1)",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_the_error_names_both_sides(case: str) -> None:
    weights, patterns, kind, expected = REFUSED[case]
    with pytest.raises(kind) as error:
        plan(weights, *patterns)
    for text in expected:
        assert text in str(error.value)


def test_rows_are_matched_by_place_without_a_vocabulary_if_their_number_is_equal() -> None:
    words = np.ones((5, 3), np.float32)
    start = plan(source(tokens=None, arrays={"embedding/words": words}), "embedding/words")
    assert start.variables["embedding/words"].rows is None
    assert start.token_rows == (5, 5)


def test_a_network_starts_with_the_values_that_are_taken_and_keeps_the_others() -> None:
    old, new, fresh = (build_network(NETWORK, 6, 1), build_network(NETWORK, 5, 2), build_network(NETWORK, 5, 2))
    shapes = {variable.path: tuple(variable.shape) for variable in new.weights}
    start = plan_warm_start(network_source("old", old, TOKENS), shapes, OTHER_TOKENS, ("embedding/*",))
    set_start(new, start)
    values, before, source_values = (
        {variable.path: variable.numpy() for variable in network.weights} for network in (new, fresh, old)
    )
    rows, others = [0, 1, 2, 4], [3]
    np.testing.assert_array_equal(values["embedding/words"][rows], source_values["embedding/words"][[0, 1, 5, 2]])
    np.testing.assert_array_equal(values["embedding/words"][others], before["embedding/words"][others])
    for path in PATHS:
        if not path.startswith("embedding/"):
            np.testing.assert_array_equal(values[path], before[path])


# Files


def write_npz(path: Path, **entries: np.ndarray) -> Path:
    write_weights(build_network(NETWORK, 6, 1), path, TOKENS, calibrated=False)
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays.files if not name.startswith("spamscore:")}
    np.savez(path, **content, **{name.replace("__", ":"): value for name, value in entries.items()})
    return path


def test_a_file_with_its_vocabulary_is_matched_by_token(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "w.npz", spamscore__calibrated=np.array(False), spamscore__vocabulary=np.array(TOKENS))
    weights, is_marked = read_npz_source(path)
    assert (is_marked, weights.tokens) == (True, list(TOKENS))
    assert list(weights.arrays) == PATHS


def test_a_file_of_another_program_says_neither(tmp_path: Path) -> None:
    weights, is_marked = read_npz_source(write_npz(tmp_path / "w.npz"))
    assert (is_marked, weights.tokens) == (False, None)


@pytest.mark.parametrize(
    ("entries", "kind", "expected"),
    [
        ({"spamscore__calibrated": np.array(True)}, WarmStartError, "its weights are calibrated.*version:N"),
        ({"spamscore__calibrated": np.array("no")}, ArtifactError, "expected a single bool"),
        ({"spamscore__vocabulary": np.zeros(6)}, ArtifactError, "expected an array of text"),
    ],
    ids=["calibrated", "calibrated is text", "vocabulary is numbers"],
)
def test_a_calibrated_file_and_a_file_of_other_entries_are_refused(
    tmp_path: Path, entries: dict[str, np.ndarray], kind: type[SpamscoreError], expected: str
) -> None:
    with pytest.raises(kind, match=expected):
        read_npz_source(write_npz(tmp_path / "w.npz", **entries))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"], ids=["empty", "text", "truncated"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"w\.npz: expected weights as \.npz"):
        read_npz_source(tmp_path / "w.npz")


# Training

VOCABULARY = Vocabulary(TOKENS, (0, 0, 4, 3, 2, 1), TextSettings())
MESSAGES = LabelledMessages(["free win", "call mum"] * 8, np.tile(np.array([1, 0], np.int32), 8))
TRAINING = TrainingSettings(epochs=2, batch_size=4, seed=2, augmentation=0.0, checkpoint_steps=3)


class KilledError(Exception):
    """Ends a training as a kill does."""


def test_a_killed_warm_training_resumes_to_the_same_weights_as_an_undisturbed_one(tmp_path: Path) -> None:
    first = train(MESSAGES, MESSAGES, VOCABULARY, NETWORK, TRAINING, tmp_path / "first")
    shapes = {variable.path: tuple(variable.shape) for variable in first.network.weights}
    start = plan_warm_start(network_source("first", first.network, TOKENS), shapes, TOKENS, ("all",))

    def kill(progress: Any) -> None:
        if (progress.epoch, progress.step) == (2, 2):
            raise KilledError

    undisturbed = train(MESSAGES, MESSAGES, VOCABULARY, NETWORK, TRAINING, tmp_path / "a", start=start)
    with pytest.raises(KilledError):
        train(MESSAGES, MESSAGES, VOCABULARY, NETWORK, TRAINING, tmp_path / "b", kill, start=start)
    resumed = train(MESSAGES, MESSAGES, VOCABULARY, NETWORK, TRAINING, tmp_path / "b", start=start)
    assert weights_sha256(resumed.network) == weights_sha256(undisturbed.network)
    assert undisturbed.history[0].loss < first.history[0].loss
