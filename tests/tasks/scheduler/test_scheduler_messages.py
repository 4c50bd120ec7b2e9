"""What a person says to a running task, and what it answers. The way there and back is in test_steady_scheduler."""

from __future__ import annotations

import queue

import luigi
import pytest

from tasks.scheduler.scheduler_messages import PAUSE, RESUME, Instruction, Instructions
from tasks.scheduler.status import Teller


class Message:
    def __init__(self, content: str) -> None:
        self.content = content
        self.answers: list[str] = []

    def __str__(self) -> str:
        return self.content

    def respond(self, answer: str) -> None:
        self.answers.append(answer)


def answers(*contents: str, known: tuple[Instruction, ...]) -> list[str]:
    """What is answered to messages, one after the other."""
    task = luigi.Task()
    task.scheduler_messages = queue.Queue()
    task.set_status_message = lambda _status: None
    messages = [Message(content) for content in contents]
    for message in messages:
        task.scheduler_messages.put(message)
    with Teller(task) as teller:
        Instructions(teller, known).follow()
    return [answer for message in messages for answer in message.answers]


@pytest.mark.parametrize("content", ["stop", "STOP", "  Stop\n"])
def test_a_word_is_known_however_it_is_written(content: str) -> None:
    stop = Instruction("stop", "end early", lambda: "stopping")
    assert answers(content, known=(stop,)) == ["stopping"]


@pytest.mark.parametrize("content", ["", "stopp", "stop now", "\x1b[2J", "x" * 100_000])
def test_an_unknown_message_is_answered_with_those_that_are_known(content: str) -> None:
    stop = Instruction("stop", "end early", lambda: "stopping")
    assert answers(content, known=(stop, PAUSE)) == [
        "unknown message. Known are: stop (end early); pause (wait after the chunk that is being scored)."
    ]


def test_every_message_is_answered_in_its_order() -> None:
    assert answers("pause", "pause", "resume", "resume", known=(PAUSE, RESUME)) == [
        "paused; send resume to go on", "paused already; send resume to go on", "going on", "it was not paused",
    ]  # fmt: skip
