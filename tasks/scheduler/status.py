"""Sends the progress of a task to Luigi's page and answers messages from there. The work never waits for it.

A thread sends the latest status, at most every two seconds. A scheduler that is slow or gone misses updates and
receives the latest one when it answers again. `tasks.scheduler.resilient_scheduler` logs that it is gone.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from types import TracebackType
from typing import Any

import luigi

log = logging.getLogger("spamscore")

_SEND_INTERVAL_SECONDS = 2.0
_RETRY_SECONDS = 5.0
# The status is sent again even if it did not change: a scheduler that was restarted has lost it.
_REPEAT_SECONDS = 10.0


class StatusReporter:
    """Reports the status of one task while the block lasts. Its thread ends with the block.

    Outside a Luigi worker there is no scheduler to report to, and no thread is started.
    """

    def __init__(self, task: luigi.Task) -> None:
        self._task: Any = task  # Luigi sets the reporting methods of a task while it runs
        self._changed = threading.Condition()
        self._status: tuple[float, str] | None = None
        self._link: str | None = None
        self._answers: deque[tuple[Any, str]] = deque()
        self._is_pending = self._is_link_sent = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"status of {task}", daemon=True)

    def __enter__(self) -> StatusReporter:
        if self._task.set_status_message is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def set_status(self, percentage: float, status: str) -> None:
        """Sets the percentage and the status line that the page shows."""
        with self._changed:
            if self._status != (percentage, status):
                self._status, self._is_pending = (percentage, status), True
                self._changed.notify()

    def set_link(self, url: str) -> None:
        """Sets the URL that the page links the task to."""
        with self._changed:
            self._link, self._is_link_sent, self._is_pending = url, False, True
            self._changed.notify()

    def take_messages(self) -> list[Any]:
        """Returns the messages that were sent from the page since the last call."""
        taken: list[Any] = []
        messages = getattr(self._task, "scheduler_messages", None)  # set if the task accepts messages
        while messages is not None:
            try:
                taken.append(messages.get_nowait())
            except queue.Empty:
                break
        return taken

    def answer(self, message: Any, text: str) -> None:
        """Answers one of the messages."""
        with self._changed:
            self._answers.append((message, text))
            self._changed.notify()

    def _run(self) -> None:
        finished = False
        while not finished:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._is_pending or self._answers, _REPEAT_SECONDS)
            sent = self._send()
            with self._changed:
                # A last status may have been set while the one before was sent.
                finished = self._is_closed and not (sent and (self._is_pending or self._answers))
                pause = _SEND_INTERVAL_SECONDS if sent else _RETRY_SECONDS
                self._changed.wait_for(self._is_urgent if sent else self._must_end, pause)

    def _must_end(self) -> bool:
        return self._is_closed

    def _is_urgent(self) -> bool:
        """Returns whether the next send must not wait for its interval: a person is waiting for an answer."""
        return self._is_closed or bool(self._answers)

    def _send(self) -> bool:
        """Sends all that is pending and returns whether the scheduler received it."""
        with self._changed:
            status, self._is_pending = self._status, False
        try:
            self._send_answers()
            if self._link is not None and not self._is_link_sent:
                self._task.set_tracking_url(self._link)
                self._is_link_sent = True
            if status is not None:
                self._task.set_status_message(status[1])
                self._task.set_progress_percentage(round(status[0], 1))
        except Exception as error:  # no error of the scheduler's client may end the work
            log.debug("the scheduler did not receive the status of %s: %s", self._task, error)
            # A scheduler that was restarted has lost the link.
            self._is_link_sent = False
            return False
        return True

    def _send_answers(self) -> None:
        while self._answers:
            message, text = self._answers[0]
            message.respond(text)
            self._answers.popleft()
