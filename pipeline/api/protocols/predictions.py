"""The front end's own REST API: POST /v1/predictions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from pipeline.api.limits import UNPROCESSABLE, RequestError

if TYPE_CHECKING:
    from pipeline.api.model_service import ModelService

PATH = "/v1/predictions"


class PredictionRequest(BaseModel):
    """The messages to score."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    messages: Annotated[list[str], Field(description="Texts of the messages. One message is a list of one.")]


class Word(BaseModel):
    """A word of a message, and how it changed the score."""

    text: str
    start: Annotated[int, Field(description="Index of its first character in the message.")]
    end: Annotated[int, Field(description="Index after its last character.")]
    change: Annotated[float, Field(description="Logit of the message minus the logit without the word.")]
    probability_without: Annotated[float, Field(description="Spam probability of the message without the word.")]


class Prediction(BaseModel):
    """The prediction of one message. Probability and flagged are null if it is empty or cannot be scored."""

    probability: float | None
    flagged: bool | None
    words: Annotated[list[Word] | None, Field(description="Only with explain=true.")] = None
    decisive: Annotated[list[str] | None, Field(description="Words without which the verdict is reversed.")] = None


class PredictionAnswer(BaseModel):
    """The predictions of the messages, in their order."""

    predictions: list[Prediction]
    threshold: Annotated[float, Field(description="Probability from which a message is flagged.")]
    model_version: int


async def answer_predictions(service: ModelService, body: bytes, query: bytes) -> bytes:
    """Answers a request.

    Args:
        service: scores the messages.
        body: JSON of a `PredictionRequest`.
        query: query of the URL.

    Returns:
        JSON of a `PredictionAnswer`.

    Raises:
        RequestError: the body is not what is expected, or the messages cannot be scored now.
    """
    messages = _parse(body)
    predictions = await service.predict(messages)
    rows: list[dict[str, Any]] = [
        {"probability": probability, "flagged": flagged}
        for probability, flagged in zip(predictions.probabilities, predictions.flagged, strict=True)
    ]
    if query == b"explain=true":
        for row, message in zip(rows, messages, strict=True):
            explained = await service.explain(message)
            explanation = explained.explanation
            row["words"] = [asdict(part) for part in explanation.parts] if explanation else []
            row["decisive"] = [part.text for part in explanation.decisive] if explanation else []
    return to_json(
        {"predictions": rows, "threshold": predictions.threshold, "model_version": predictions.model_version}
    )


def _parse(body: bytes) -> list[str]:
    try:
        return PredictionRequest.model_validate_json(body).messages
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        text = "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}" for detail in details[:3])
        raise RequestError(UNPROCESSABLE, text) from None
