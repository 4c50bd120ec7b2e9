"""What the front end needs from a backend: scores and explanations of messages, and whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage


class Wanted(NamedTuple):
    """The model version that a request asks for, by number or by label; neither is the version in service."""

    version: int | None = None
    label: str | None = None


IN_SERVICE = Wanted()


@dataclass(frozen=True, slots=True)
class Scores:
    """The answer of a backend.

    Attributes:
        probabilities: spam probability of each message; None for a message that cannot be scored.
        threshold: probability from which a message is flagged.
        version: the model version that scored the messages.
    """

    probabilities: list[float | None]
    threshold: float
    version: int


class Backend(Protocol):
    """Scores messages. Its methods are called in the event loop."""

    async def start(self) -> None:
        """Prepares the backend, and follows the version in service from now on."""

    async def stop(self) -> None:
        """Ends what `start` started."""

    def problem(self) -> str | None:
        """Returns why the backend cannot score messages; None if it can."""

    def warning(self) -> str | None:
        """Returns what an operator should look at although messages are scored; None for nothing."""

    async def score(self, texts: list[str], wanted: Wanted) -> Scores:
        """Scores messages, also empty ones.

        Raises:
            RequestError: the version is not served, the queue is full, or the backend does not answer.
        """

    async def explain(self, text: str, wanted: Wanted) -> ExplainedMessage:
        """Finds the words that changed the score of a message.

        Raises:
            RequestError: as `score`.
        """
