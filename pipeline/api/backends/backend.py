"""What the front end needs from a backend: scores and explanations of messages, and whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pipeline.api.limits import NOT_FOUND, RequestError

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage


class Wanted(NamedTuple):
    """The model version that a request asks for, by number or by label; neither is the version in service."""

    version: int | None = None
    label: str | None = None


IN_SERVICE = Wanted()


class NotServedError(RequestError):
    """A request for a version or label that is not served."""

    def __init__(self, wanted: Wanted) -> None:
        named = f"version {wanted.version}" if wanted.version is not None else f"label {wanted.label}"
        super().__init__(
            NOT_FOUND, f"{named}: the front end does not serve it. To list the versions: GET /v1/models/NAME"
        )
        self.wanted = wanted


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


class VersionState(NamedTuple):
    """A version that can be asked for, and why it cannot answer; an empty text if it can."""

    version: int
    error: str = ""


class Backend(Protocol):
    """Scores messages. Its methods are called in the event loop."""

    async def start(self) -> None:
        """Starts the backend, and follows the version in service from now on. Does not wait until it is ready."""

    async def stop(self) -> None:
        """Stops what `start` started."""

    def problem(self) -> str | None:
        """Returns why the backend cannot score messages; None if it can."""

    def warning(self) -> str | None:
        """Returns what an operator should correct although messages are scored; None for nothing."""

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

    async def resolve(self, wanted: Wanted) -> int:
        """Returns the version that a request asks for.

        Raises:
            RequestError: it is not served, or the backend does not answer.
        """

    async def versions(self) -> list[VersionState]:
        """Returns the versions that can be asked for, ascending.

        Raises:
            RequestError: the backend does not answer.
        """
