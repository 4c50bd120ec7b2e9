"""Handles messages that a person sends to a running task on Luigi's page: `stop`, `checkpoint`, `pause`, `resume`.

Luigi puts messages into the task's queue (`scheduler_messages`). A task reads the queue between two units of work and
answers each message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.scheduler.status import StatusReporter

log = logging.getLogger("spamscore")


@dataclass(frozen=True)
class SchedulerMessage:
    """A message that a task supports.

    Attributes:
        word: the text of the message, in lower case.
        description: what the task does, in a few words.
        action: carries out the message and returns the answer; None if `MessageHandler` carries it out.
    """

    word: str
    description: str
    action: Callable[[], str] | None = None


PAUSE = SchedulerMessage("pause", "wait after the chunk that is being scored")
RESUME = SchedulerMessage("resume", "continue")


class MessageHandler:
    """Reads the messages that were sent to a task, carries them out and answers them."""

    def __init__(self, status: StatusReporter, supported: Sequence[SchedulerMessage]) -> None:
        self._status = status
        self._supported = {message.word: message for message in supported}
        self.paused = False

    def handle_pending(self) -> None:
        """Carries out all messages since the last call, in their order."""
        for message in self._status.take_messages():
            answer = self._carry_out(" ".join(str(message).split()).casefold())
            log.info("message from Luigi's page: %a: %s", str(message)[:80], answer)
            self._status.answer(message, answer)

    def _carry_out(self, word: str) -> str:
        message = self._supported.get(word)
        if message is None:
            supported = "; ".join(f"{other.word} ({other.description})" for other in self._supported.values())
            return f"unknown message. Supported messages: {supported}."
        return message.action() if message.action is not None else self._set_paused(message is PAUSE)

    def _set_paused(self, paused: bool) -> str:
        was_paused, self.paused = self.paused, paused
        if paused:
            return "already paused; send resume to continue" if was_paused else "paused; send resume to continue"
        return "continuing" if was_paused else "not paused"
