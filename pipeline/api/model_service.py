"""Answers which spam probability messages have, and why. All protocols and the page call it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.api.backends.backend import IN_SERVICE, Backend, Scores, Wanted
from pipeline.api.limits import UNPROCESSABLE, RequestError, timeout_error

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage
    from pipeline.api.metrics import Metrics
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
    """Scores and explains messages with a backend. The callers of `predict` and `score` limit the time.

    Attributes:
        backend: computes the scores.
        draining: whether the front end is stopping.
    """

    def __init__(self, backend: Backend, settings: ApiSettings, metrics: Metrics) -> None:
        self.backend, self.draining = backend, False
        self._settings, self._metrics = settings, metrics

    async def predict(self, texts: list[str], wanted: Wanted = IN_SERVICE) -> Predictions:
        """Returns the predictions of messages, equal to those of a batch and of `spamscore text`.

        Raises:
            RequestError: there are too many messages, or the backend cannot score them now.
        """
        scored = [text for text in texts if text.strip()]
        scores = await self._score(scored, len(texts), wanted)
        probabilities, threshold = scores.probabilities, scores.threshold
        if len(scored) < len(texts):
            remaining = iter(probabilities)
            probabilities = [next(remaining) if text.strip() else None for text in texts]
        flagged = [None if value is None else value >= threshold for value in probabilities]
        self._metrics.count_messages(flagged)
        return Predictions(probabilities, flagged, threshold, scores.version)

    async def score(self, texts: list[str], wanted: Wanted = IN_SERVICE) -> Scores:
        """Returns the probabilities of messages as TensorFlow Serving does: empty messages have one too.

        Raises:
            RequestError: as `predict`.
        """
        scores = await self._score(texts, len(texts), wanted)
        threshold = scores.threshold
        self._metrics.count_messages([None if value is None else value >= threshold for value in scores.probabilities])
        return scores

    async def explain(self, text: str, wanted: Wanted = IN_SERVICE) -> ExplainedMessage:
        """Returns the prediction of a message and the words that changed it.

        Raises:
            RequestError: the backend cannot score the message now, or does not within [api] timeout.
        """
        seconds = self._settings.timeout
        try:
            async with asyncio.timeout(seconds):
                return await self.backend.explain(text, wanted)
        except TimeoutError:
            raise timeout_error("there is no explanation", seconds) from None

    async def _score(self, texts: list[str], received: int, wanted: Wanted) -> Scores:
        limit = self._settings.max_messages
        if received > limit:
            raise RequestError(
                UNPROCESSABLE,
                f"received {received:,} messages, expected at most {limit:,}, the limit of [api] max_messages; send "
                "several requests",
            )
        return await self.backend.score(texts, wanted)
