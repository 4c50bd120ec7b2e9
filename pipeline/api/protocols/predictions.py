"""The front end's own REST API: POST /v1/predictions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from pipeline.api.backends.backend import IN_SERVICE, Wanted
from pipeline.api.limits import NOT_FOUND, UNPROCESSABLE, RequestError
from pipeline.api.protocols.json_bodies import JSON_TYPES, parse_json

if TYPE_CHECKING:
    from pipeline.api.model_service import ModelService

PATH = "/v1/predictions"
# An explanation takes hundreds of times as long as a score.
MAX_EXPLAINED = 10
_MAX_PARAMETERS = 20


class PredictionRequest(BaseModel):
    """The messages to score."""

    model_config = ConfigDict(extra="forbid")
    messages: Annotated[list[str], Field(description="Texts of the messages. One message is a list of one.")]


class PredictionQuery(BaseModel):
    """The parameters in the URL."""

    model_config = ConfigDict(extra="forbid")
    explain: Annotated[bool, Field(description="Whether the words that moved each score are added.")] = False
    version: Annotated[int | None, Field(ge=1, description="Model version to ask; by default the one in service.")] = (
        None
    )
    label: Annotated[Literal["stable", "canary"] | None, Field(description="Label of the version to ask.")] = None


class Word(BaseModel):
    """A word of a message, and how it changed the score."""

    text: str
    start: Annotated[int, Field(description="Index of its first character in the message.")]
    end: Annotated[int, Field(description="Index after its last character.")]
    change: Annotated[float, Field(description="Logit of the message minus the logit without the word.")]
    probability_without: Annotated[float, Field(description="Spam probability of the message without the word.")]


class Prediction(BaseModel):
    """The prediction of one message. Probability and flagged are null if it is empty or cannot be scored."""

    probability: Annotated[float | None, Field(description="Spam probability, with six decimals.")]
    flagged: Annotated[bool | None, Field(description="Whether the probability is at least the threshold.")]
    words: Annotated[list[Word], Field(description="With explain=true: all words, in their order.")] = []
    decisive: Annotated[list[str], Field(description="With explain=true: words that decide the verdict together.")] = []


class PredictionAnswer(BaseModel):
    """The predictions of the messages, in their order."""

    predictions: list[Prediction]
    threshold: Annotated[float, Field(description="Probability from which a message is flagged.")]
    model_version: Annotated[int, Field(description="Version that scored the messages.")]


class Predictions:
    """Answers POST /v1/predictions. `PredictionRequest`, `PredictionQuery` and `PredictionAnswer` describe it."""

    name = "rest"

    def __init__(self, service: ModelService) -> None:
        self._service = service

    def methods(self, _path: str) -> tuple[str, ...]:
        """Returns the methods of a path."""
        return ("POST",)

    def call(self, _path: str) -> str:
        """Returns the name of the call, for the metrics."""
        return "predict"

    def status(self, error: RequestError) -> int:
        """Returns the status code of an error."""
        return error.status

    async def answer(self, _path: str, query: bytes, body: bytes) -> bytes:
        """Answers a request in JSON.

        Raises:
            RequestError: the request is not what is expected, or the messages cannot be scored now.
        """
        messages = _parse_body(body)
        explain, wanted = _parse_query(query) if query else (False, IN_SERVICE)
        if explain and len(messages) > MAX_EXPLAINED:
            raise RequestError(
                UNPROCESSABLE, f"explain=true: received {len(messages):,} messages, expected at most {MAX_EXPLAINED}"
            )
        predictions = await self._service.predict(messages, wanted)
        rows: list[dict[str, Any]] = [
            {"probability": probability, "flagged": flagged}
            for probability, flagged in zip(predictions.probabilities, predictions.flagged, strict=True)
        ]
        if explain:
            # All parts of an answer are of one version, also if another one is put in service meanwhile.
            await self._explain(messages, rows, Wanted(predictions.model_version))
        return to_json(
            {"predictions": rows, "threshold": predictions.threshold, "model_version": predictions.model_version}
        )

    async def _explain(self, messages: list[str], rows: list[dict[str, Any]], wanted: Wanted) -> None:
        for message, row in zip(messages, rows, strict=True):
            words, decisive = [], []
            if row["probability"] is not None and (
                explanation := (await self._service.explain(message, wanted)).explanation
            ):
                words = [asdict(part) for part in explanation.parts]
                decisive = [part.text for part in explanation.decisive]
            row["words"], row["decisive"] = words, decisive


def _parse_body(body: bytes) -> list[str]:
    """Reads a `PredictionRequest`. Pydantic would collect an error for each of millions of wrong values."""
    request = parse_json(body, UNPROCESSABLE)
    if type(request) is not dict or request.keys() != {"messages"}:
        raise RequestError(UNPROCESSABLE, 'body: expected an object with the one key "messages"')
    messages = request["messages"]
    if type(messages) is not list:
        raise RequestError(UNPROCESSABLE, f"messages: expected a list of texts, received {JSON_TYPES[type(messages)]}")
    for index, message in enumerate(messages):
        if type(message) is not str:
            raise RequestError(
                UNPROCESSABLE, f"messages, index {index}: expected a text, received {JSON_TYPES[type(message)]}"
            )
    return messages


def _parse_query(query: bytes) -> tuple[bool, Wanted]:
    try:
        pairs = parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
        parameters = PredictionQuery.model_validate(dict(pairs))
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        problems = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in details]
        raise RequestError(UNPROCESSABLE, f"query: {'; '.join(problems)}") from None
    except ValueError:
        raise RequestError(UNPROCESSABLE, f"query: expected at most {_MAX_PARAMETERS} parameters") from None
    if parameters.version is not None and parameters.label is not None:
        raise RequestError(NOT_FOUND, "no model version is named by both version and label; give one of the two")
    return parameters.explain, Wanted(parameters.version, parameters.label)
