"""Asks a model server for messages that are typed or piped in, for `spamscore ask`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from models.errors import ServerError
from pipeline.client.server import MAX_CALL_MESSAGES, Client, ModelServer


@dataclass(frozen=True)
class ServedPrediction:
    """The score of a message; probability and version are None for an empty message, which is not sent."""

    message: str
    spam_probability: float | None
    model_version: int | None
    flagged: ClassVar[None] = None  # the served model has no threshold

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore ask --json`."""
        return asdict(self)


def open_client(server: ModelServer, rest: bool) -> Client:
    """Returns a client for gRPC, or for REST.

    Raises:
        SettingsError: the extra `serving` is not installed, or a file of TLS is missing or damaged.
    """
    if rest:
        from pipeline.client.rest_client import RestClient

        return RestClient(server)
    from pipeline.client.grpc_client import GrpcClient

    return GrpcClient(server)


def ask(client: Client, messages: Sequence[str], classify: bool) -> list[ServedPrediction]:
    """Asks for messages, in calls of up to 512, and returns one prediction per message in the same order.

    Args:
        client: a connection.
        messages: messages; those that are empty or blank are not sent.
        classify: whether to call Classify instead of Predict.

    Raises:
        ServerError: a call fails. If the version is not served, the error names those that are.
    """
    predictions = [ServedPrediction(message, None, None) for message in messages]
    indices = [index for index, message in enumerate(messages) if message.strip()]
    for start in range(0, len(indices), MAX_CALL_MESSAGES):
        called = indices[start : start + MAX_CALL_MESSAGES]
        with name_served_versions(client):
            scores = (client.classify if classify else client.predict)([messages[index] for index in called])
        for index, probability in zip(called, scores.probabilities.tolist(), strict=True):
            predictions[index] = ServedPrediction(messages[index], probability, scores.version)
    return predictions


@contextlib.contextmanager
def name_served_versions(client: Client) -> Iterator[None]:
    """Adds the versions that the server has to the error that it has not the one that was asked for."""
    try:
        yield
    except ServerError as error:
        if error.kind != "not served":
            raise
        try:
            versions = client.status()
        except ServerError:
            raise error from None  # what was asked for is the reason, not the second question
        served = ", ".join(str(one.version) for one in versions if one.state == "AVAILABLE") or "none"
        raise ServerError(f"{error} Versions that the server has: {served}.", error.kind, error.temporary) from None
