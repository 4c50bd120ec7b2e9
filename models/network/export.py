"""Exports the SavedModel that a server loads: raw text in, spam probabilities out, with cleaning and vocabulary inside.

It has two signatures. `predict_spam` maps `texts`, string [n], to `scores`, float32 [n]. The default signature is for
classification: it maps `inputs`, serialized `tf.Example` with the feature `text`, to `classes` and `scores`, both
[n, 2], ham and spam.

Keras's `ExportArchive` writes it, because a `tf.Module` that contains a Keras model loads in Python but fails in the
server (keras-team/keras#19274). Optimizer variables are not exported. A GRU is exported without cuDNN.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import ArtifactError
from models.network.network import ngram_vectors
from models.text.cleaning import compile_graph, encode_utf8
from models.text.encoder import TextEncoder, write_tokens
from models.text.vocabulary import Vocabulary

PREDICT_SIGNATURE = "predict_spam"
CLASSIFY_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
CLASSES = ("ham", "spam")
_CLASSIFY_METHOD = "tensorflow/serving/classify"


class _ServingModule(tf.Module):
    """The computations of the signatures. Owns the encoder, so that its tables are tracked."""

    def __init__(self, encoder: TextEncoder, network: keras.Model) -> None:
        super().__init__(name="served")
        self.encoder = encoder
        self._network = network
        # Both signatures call one graph, which is traced once. It is a bound method, because an export would also write
        # TensorFlow functions.
        self.predict_spam = compile_graph(self._predict_spam).__call__

    def _predict_spam(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps texts, string [n], to spam probabilities, float32 [n]."""
        encoded = self.encoder(texts)
        # An empty batch has no tokens, but the recurrent layer needs one step.
        rows = encoded["rows"].to_tensor()
        rows = tf.pad(rows, [[0, 0], [0, tf.cast(tf.shape(rows)[1] == 0, tf.int32)]])
        ngrams, characters = encoded["ngrams"], encoded["characters"]
        batch = {
            "rows": rows,
            "words": encoded["words"],
            "shapes": encoded["shapes"],
            "ngrams": ngrams.flat_values,
            "owners": tf.cast(ngrams.value_rowids(), tf.int32),
            "characters": characters.flat_values,
            "character_counts": tf.cast(characters.row_lengths(), tf.int32),
        }
        return {"scores": tf.sigmoid(self._network(batch, training=False))}

    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps serialized `tf.Example` [n] to classes, string [n, 2], and scores, float32 [n, 2]."""
        features = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string)})
        spam = self.predict_spam(features["text"])["scores"]
        classes = tf.repeat(tf.constant([CLASSES]), tf.shape(spam)[0], axis=0)
        return {"classes": classes, "scores": tf.stack([1.0 - spam, spam], axis=1)}


def write_saved_model(vocabulary: Vocabulary, network: keras.Model, folder: Path) -> None:
    """Writes the SavedModel into a folder.

    Args:
        vocabulary: stored as the asset ``assets/vocabulary.txt``.
        network: a model from encoded messages to logits.
        folder: the folder for ``saved_model.pb``, ``variables/`` and ``assets/``; created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Inside the folder, so that files left by a killed process are removed with it.
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as scratch, temporary_files_in(scratch):
        asset = write_tokens(vocabulary, Path(scratch, "vocabulary.txt"))
        served = _ServingModule(TextEncoder(vocabulary, ngram_vectors(network), asset), network)
        archive = keras.export.ExportArchive()
        archive.track(network)
        archive.track(served)
        archive.add_endpoint(
            CLASSIFY_SIGNATURE, served.classify, input_signature=[tf.TensorSpec([None], tf.string, name="inputs")]
        )
        archive.add_endpoint(
            PREDICT_SIGNATURE, served.predict_spam, input_signature=[tf.TensorSpec([None], tf.string, name="texts")]
        )
        archive.write_out(str(folder), verbose=False)
    _declare_classification(folder)


@contextlib.contextmanager
def temporary_files_in(folder: str) -> Iterator[None]:
    """Makes TensorFlow and Keras write temporary files to the folder, some of which only a normal exit deletes."""
    previous, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = previous


def _declare_classification(folder: Path) -> None:
    """Sets the method name of the classification signature.

    TensorFlow 2 writes "predict" for every signature, but the server's Classify call expects its own method name.
    """
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
    updater.replace_method_name(signature_key=CLASSIFY_SIGNATURE, method_name=_CLASSIFY_METHOD)
    updater.save()


class ServedModel:
    """An exported model, loaded the way the server loads it: graph, session, signatures by name."""

    def __init__(self, folder: Path) -> None:
        """Loads the SavedModel.

        Raises:
            ArtifactError: the folder contains no SavedModel, or it is damaged.
        """
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph)
        try:
            with self._graph.as_default():
                loaded = tf.compat.v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], str(folder))
        except (OSError, tf.errors.OpError, ValueError) as error:
            raise ArtifactError(f"{folder}: expected a SavedModel, but {str(error).splitlines()[0]}") from None
        self.signatures = loaded.signature_def

    def __enter__(self) -> ServedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def run(self, signature: str, values: Sequence[bytes]) -> dict[str, npt.NDArray[np.generic]]:
        """Runs a signature on its only input, string [n], and returns its outputs by name."""
        definition = self.signatures[signature]
        (tensor,) = definition.inputs.values()
        fetches = {name: output.name for name, output in definition.outputs.items()}
        feed = np.array(list(values), dtype=object)
        return dict(self._session.run(fetches, {tensor.name: feed}))

    def predict_spam(self, texts: Sequence[str]) -> npt.NDArray[np.generic]:
        """Returns the spam probabilities of messages, float32 [messages]."""
        return self.run(PREDICT_SIGNATURE, encode_utf8(texts))["scores"]


def write_warmup(folder: Path, texts: Sequence[str], model_name: str) -> None:
    """Writes the warmup requests that a server runs before it takes traffic: one Predict call with the texts.

    The file contains a `PredictionLog` with a `PredictRequest`. It is encoded field by field, because the Python
    classes are in another distribution (tensorflow-serving-api) that pins its own TensorFlow.
    """
    target = folder / "assets.extra" / "tf_serving_warmup_requests"
    target.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(target)) as writer:
        writer.write(_prediction_log(model_name, encode_utf8(texts)))


def _prediction_log(model_name: str, texts: Sequence[bytes]) -> bytes:
    """Encodes a `PredictionLog`.

    Field numbers from tensorflow_serving/apis: PredictionLog.predict_log 6, PredictLog.request 1,
    PredictRequest.model_spec 1 and inputs 2 (a map), ModelSpec.name 1 and signature_name 3.
    """
    tensor = tf.make_tensor_proto(list(texts), dtype=tf.string).SerializeToString()
    spec = _field(1, model_name.encode()) + _field(3, PREDICT_SIGNATURE.encode())
    entry = _field(1, b"texts") + _field(2, tensor)
    request = _field(1, spec) + _field(2, entry)
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """Encodes a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    head = []
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])
