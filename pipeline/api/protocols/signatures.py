"""The signatures of the exported model, as TensorFlow Serving calls them, computed by the front end.

`models.network.export` defines them. A value is a text or, as in TensorFlow, the bytes of one. Errors have the words of
TensorFlow Serving, because its clients may look for them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline.api.backends.backend import NotServedError, Wanted
from pipeline.api.limits import BAD_REQUEST, INTERNAL, NOT_FOUND, UNAVAILABLE, RequestError
from tasks.artifacts.exports import exports_folder
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings

if TYPE_CHECKING:
    from pipeline.api.model_service import ModelService

PREDICT, CLASSIFY, REGRESS = "predict_spam", "serving_default", "regress"
CLASSES = ("ham", "spam")
FEATURE = "text"
_METHODS = {PREDICT: "tensorflow/serving/predict", CLASSIFY: "tensorflow/serving/classify"}
INPUTS = {PREDICT: "texts", CLASSIFY: "inputs"}
OUTPUTS = {PREDICT: ("scores",), CLASSIFY: ("classes", "scores")}
_DECIMALS = 6

Value = str | bytes


class SpamScores(NamedTuple):
    """Spam probabilities of messages, and the version that computed them."""

    probabilities: list[float]
    version: int

    def both(self) -> list[tuple[float, float]]:
        """Returns the probabilities of ham and spam of each message."""
        return [(round(1 - spam, _DECIMALS), spam) for spam in self.probabilities]


class Signatures:
    """The model as its clients see it: by name, version and signature."""

    def __init__(self, service: ModelService) -> None:
        self.service = service
        self.model_name = load(ArtifactSettings).model_name

    def require_model(self, name: str, wanted: Wanted) -> None:
        """Raises RequestError unless the name is the model's."""
        if name != self.model_name:
            kind = f"Latest({name})" if wanted.version is None else f"Specific({name}, {wanted.version})"
            raise RequestError(NOT_FOUND, f"Servable not found for request: {kind}")

    def require_signature(self, signature: str, method: str | None = None) -> str:
        """Returns the name of a signature; an empty one is the default.

        Args:
            signature: name in the request.
            method: classify or regress, if the signature must have this method.

        Raises:
            RequestError: there is no such signature, or it has another method.
        """
        signature = signature or CLASSIFY
        if signature not in _METHODS:
            raise RequestError(BAD_REQUEST, f'Serving signature name: "{signature}" not found in signature def')
        if method and _METHODS[signature] != f"tensorflow/serving/{method}":
            kind = {"classify": "classification", "regress": "regression"}[method]
            raise RequestError(
                BAD_REQUEST,
                f"Expected {kind} signature method_name to be tensorflow/serving/{method}. Was: {_METHODS[signature]}",
            )
        return signature

    async def run(self, wanted: Wanted, signature: str, values: Sequence[Value]) -> SpamScores:
        """Runs a signature.

        Args:
            wanted: version or label.
            signature: PREDICT for texts, CLASSIFY for serialized `tf.Example`.
            values: value of its input.

        Raises:
            RequestError: a value is not an example, the version is not served, or the backend cannot score now.
        """
        if signature == CLASSIFY:
            values = [_read_example(value) for value in values]
        return await self.score(wanted, values)

    async def score(self, wanted: Wanted, texts: Sequence[Value]) -> SpamScores:
        """Scores texts.

        Raises:
            RequestError: the version is not served, or the backend cannot score now.
        """
        decoded = [text if isinstance(text, str) else text.decode("utf-8", "replace") for text in texts]
        try:
            scores = await self.service.score(decoded, wanted)
        except NotServedError as error:
            raise self.not_served(error) from None
        probabilities = [value for value in scores.probabilities if value is not None]
        if len(probabilities) < len(texts):
            raise RequestError(INTERNAL, f"{len(texts) - len(probabilities)} of {len(texts)} messages cannot be scored")
        return SpamScores(probabilities, scores.version)

    async def resolve(self, wanted: Wanted) -> int:
        """Returns the version that a request asks for.

        Raises:
            RequestError: it is not served.
        """
        try:
            return await self.service.backend.resolve(wanted)
        except NotServedError as error:
            raise self.not_served(error) from None

    def not_served(self, error: NotServedError) -> RequestError:
        """Returns the error in the words of TensorFlow Serving."""
        if error.wanted.version is not None:
            text = f"Servable not found for request: Specific({self.model_name}, {error.wanted.version})"
            return RequestError(NOT_FOUND, text)
        return RequestError(BAD_REQUEST, f"Unrecognized servable version label: {error.wanted.label}")


def _read_example(value: Value) -> bytes:
    """Returns the text of a serialized `tf.Example`."""
    from google.protobuf.message import DecodeError

    from pipeline.client.protocol import example_pb2

    try:
        example = example_pb2.Example.FromString(value.encode() if isinstance(value, str) else value)
    except DecodeError:
        raise RequestError(BAD_REQUEST, "Could not parse example input: expected a serialized tf.Example") from None
    return read_feature(example)


def read_feature(example: object, context: object | None = None) -> bytes:
    """Returns the text of a `tf.Example`, or of the context that its request has for all examples.

    Raises:
        RequestError: it has no feature `text` with one value.
    """
    for source in (example, context):
        if source is not None and (values := source.features.feature[FEATURE].bytes_list.value):  # type: ignore[attr-defined]
            return bytes(values[0])
    raise RequestError(BAD_REQUEST, f"Feature: {FEATURE} (data type: string) is required but could not be found.")


@functools.lru_cache(maxsize=8)
def _read_signature_map(path: str, _modified: int) -> bytes:
    from pipeline.client.protocol import get_model_metadata_pb2, saved_model_pb2

    with open(path, "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in saved.meta_graphs[0].signature_def.items():
        signatures.signature_def[name].CopyFrom(signature)
    content: bytes = signatures.SerializeToString()
    return content


def read_signature_map(version: int) -> bytes:
    """Returns the serialized SignatureDefMap of an exported version.

    Raises:
        RequestError: the version is not in the exports folder of this machine.
    """
    path = exports_folder() / str(version) / "saved_model.pb"
    try:
        return _read_signature_map(str(path), path.stat().st_mtime_ns)
    except OSError as error:
        raise RequestError(
            UNAVAILABLE, f"the signatures of version {version} cannot be read: {error.strerror}"
        ) from None
