"""Messages to a running task and their answers. test_resilient_scheduler tests the way through luigid."""

from __future__ import annotations

import queue

import luigi
import pytest

from tasks.scheduler.scheduler_messages import PAUSE, RESUME, MessageHandler, SchedulerMessage
from tasks.scheduler.status import StatusReporter


class Message:
    def __init__(self, content: str) -> None:
        self.content = content
        self.answers: list[str] = []

    def __str__(self) -> str:
        return self.content

    def respond(self, answer: str) -> None:
        self.answers.append(answer)


def send_messages(*contents: str, supported: tuple[SchedulerMessage, ...]) -> list[str]:
    """Returns the answers to messages that are sent one after the other."""
    task = luigi.Task()
    task.scheduler_messages = queue.Queue()
    task.set_status_message = lambda _status: None
    messages = [Message(content) for content in contents]
    for message in messages:
        task.scheduler_messages.put(message)
    with StatusReporter(task) as status:
        MessageHandler(status, supported).handle_pending()
    return [answer for message in messages for answer in message.answers]


@pytest.mark.parametrize("content", ["stop", "STOP", "  Stop\n"])
def test_case_and_spaces_of_a_message_are_ignored(content: str) -> None:
    stop = SchedulerMessage("stop", "end early", lambda: "stopping")
    assert send_messages(content, supported=(stop,)) == ["stopping"]


@pytest.mark.parametrize("content", ["", "stopp", "stop now", "\x1b[2J", "x" * 100_000])
def test_an_unknown_message_is_answered_with_the_supported_ones(content: str) -> None:
    stop = SchedulerMessage("stop", "end early", lambda: "stopping")
    assert send_messages(content, supported=(stop, PAUSE)) == [
        "unknown message. Supported messages: stop (end early); pause (wait after the chunk that is being scored)."
    ]


def test_messages_are_answered_in_order() -> None:
    assert send_messages("pause", "pause", "resume", "resume", supported=(PAUSE, RESUME)) == [
        "paused; send resume to continue", "already paused; send resume to continue", "continuing", "not paused",
    ]  # fmt: skip
