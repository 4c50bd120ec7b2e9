"""What a person says to a running task on Luigi's page: `stop`, `checkpoint`, `pause`, `resume`. Each is answered.

Luigi puts the messages into the task's queue (`scheduler_messages`); a task looks there between two pieces of its work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.scheduler.status import Teller

log = logging.getLogger("spamscore")


@dataclass(frozen=True)
class Instruction:
    """A word that a task understands.

    Attributes:
        word: what is sent, in small letters.
        does: what it is for, in a few words.
        act: does it, and gives the answer; None for those that `Instructions` does itself.
    """

    word: str
    does: str
    act: Callable[[], str] | None = None


PAUSE = Instruction("pause", "wait after the chunk that is being scored")
RESUME = Instruction("resume", "go on")


class Instructions:
    """Takes what was sent to a task, does it, and answers."""

    def __init__(self, teller: Teller, known: Sequence[Instruction]) -> None:
        self._teller, self._known = teller, {one.word: one for one in known}
        self.paused = False

    def follow(self) -> None:
        """Does all that has come since it was last asked."""
        for message in self._teller.messages():
            answer = self._answer(" ".join(str(message).split()).casefold())
            log.info("message from Luigi's page: %a: %s", str(message)[:80], answer)
            self._teller.answer(message, answer)

    def _answer(self, word: str) -> str:
        found = self._known.get(word)
        if found is None:
            known = "; ".join(f"{one.word} ({one.does})" for one in self._known.values())
            return f"unknown message. Known are: {known}."
        return found.act() if found.act is not None else self._wait(found is PAUSE)

    def _wait(self, pause: bool) -> str:
        before, self.paused = self.paused, pause
        if pause:
            return "paused already; send resume to go on" if before else "paused; send resume to go on"
        return "going on" if before else "it was not paused"
