"""The page at /: a person types a message and sees its score and the words that moved it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from starlette.responses import Response

from pipeline.answers.explanations import MAX_TABLE_WORDS, STRONG_CHANGE, ExplainedMessage
from pipeline.api.limits import TOO_LARGE, RequestError
from pipeline.api.pages.visit import Visit

if TYPE_CHECKING:
    from models.evaluation.explanation import Explanation

MAX_CHARACTERS = 10_000  # a message is scored once for each of its words, up to 200 times


class MessageService(Protocol):
    """What explains a message."""

    async def explain(self, text: str) -> ExplainedMessage:
        """Scores a message and finds the words that changed its score."""


@dataclass(frozen=True)
class ShownWord:
    """A word of the message, with the space before it.

    Attributes:
        space: characters between the word before and this one.
        text: the word.
        change: change of the logit, such as +2.31; empty if it is too small to report.
        style: to-spam or to-ham, and strong if the change is large; empty if it is too small to report.
    """

    space: str
    text: str
    change: str
    style: str


class MessagePage:
    """The page at /.

    Args:
        service: explains messages.
    """

    def __init__(self, service: MessageService) -> None:
        self._service = service

    async def show(self, visit: Visit) -> Response:
        """Shows an empty form."""
        return _render(visit, "")

    async def answer(self, visit: Visit) -> Response:
        """Shows the form again, with the message and its result. The script of the page takes the result from it."""
        message = visit.read_form().get("message", "")
        try:
            if len(message) > MAX_CHARACTERS:
                raise RequestError(TOO_LARGE, f"The page scores messages of up to {MAX_CHARACTERS:,} characters.")
            return _render(visit, message, await self._service.explain(message))
        except RequestError as error:
            return _render(visit, message[:MAX_CHARACTERS], problem=error)


def _render(
    visit: Visit, message: str, result: ExplainedMessage | None = None, problem: RequestError | None = None
) -> Response:
    explanation = result.explanation if result else None
    return visit.render(
        "message.html",
        problem.status if problem else 200,
        message=message,
        result=result,
        words=list_words(explanation) if explanation else [],
        strongest=explanation.strongest(MAX_TABLE_WORDS) if explanation else [],
        problem=str(problem) if problem else "",
        max_characters=MAX_CHARACTERS,
    )


def list_words(explanation: Explanation) -> list[ShownWord]:
    """Returns every word of a message in its order, with the spaces between them."""
    from models.evaluation.explanation import MIN_CHANGE

    words, end = [], explanation.parts[0].start if explanation.parts else 0
    for part in explanation.parts:
        change, style = "", ""
        if abs(part.change) >= MIN_CHANGE:
            change, style = f"{part.change:+.2f}", "to-spam" if part.change > 0 else "to-ham"
            style += " strong" * (abs(part.change) >= STRONG_CHANGE)
        words.append(ShownWord(explanation.message[end : part.start], part.text, change, style))
        end = part.end
    return words
