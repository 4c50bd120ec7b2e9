"""Answers which spam probability messages have, and why; all protocols and the page call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.api.backends.backend import IN_SERVICE, Backend, Wanted
from pipeline.api.limits import UNPROCESSABLE, RequestError

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage
    from tasks.settings.serving import ApiSettings


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of messages, in their order.

    Attributes:
        probabilities: spam probability of each message; None if it is empty or cannot be scored, as in a batch.
        flagged: whether each probability is at least the threshold; None without a probability.
        threshold: probability from which a message is flagged.
        model_version: the version that scored the messages.
    """

    probabilities: list[float | None]
    flagged: list[bool | None]
    threshold: float
    model_version: int


class ModelService:
    """Scores and explains messages with a backend."""

    def __init__(self, backend: Backend, settings: ApiSettings) -> None:
        self.backend = backend
        self._settings = settings

    async def predict(self, texts: list[str], wanted: Wanted = IN_SERVICE) -> Predictions:
        """Returns the predictions of messages, equal to those of a batch and of `spamscore text`.

        Raises:
            RequestError: there are too many messages, or the backend cannot score them now.
        """
        self._require_allowed(len(texts))
        scored = [text for text in texts if text.strip()]
        scores = await self.backend.score(scored, wanted)
        probabilities = scores.probabilities
        if len(scored) < len(texts):
            remaining = iter(probabilities)
            probabilities = [next(remaining) if text.strip() else None for text in texts]
        threshold = scores.threshold
        flagged = [None if value is None else value >= threshold for value in probabilities]
        return Predictions(probabilities, flagged, threshold, scores.version)

    async def explain(self, text: str, wanted: Wanted = IN_SERVICE) -> ExplainedMessage:
        """Returns the prediction of a message and the words that changed it.

        Raises:
            RequestError: the backend cannot score the message now.
        """
        return await self.backend.explain(text, wanted)

    def _require_allowed(self, messages: int) -> None:
        limit = self._settings.max_messages
        if messages > limit:
            raise RequestError(
                UNPROCESSABLE,
                f"received {messages:,} messages, expected at most {limit:,}, the limit of [api] max_messages; send "
                "several requests",
            )
