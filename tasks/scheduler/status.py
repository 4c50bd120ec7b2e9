"""Telling Luigi's page how far a task is, and answering what is asked there, without the work ever waiting for it.

A thread of its own sends the latest that there is to say, at most every other second. A scheduler that is slow or gone
misses some of it and hears the latest once it answers again; who says so is `tasks.scheduler.resilient_scheduler`.
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

_SECONDS_BETWEEN = 2.0
_SECONDS_BEFORE_ANOTHER_TRY = 5.0
# Said again although nothing is new, for a scheduler that was started anew has forgotten it.
_SECONDS_BEFORE_AGAIN = 10.0


class Teller:
    """Tells of one task while the block lasts; its thread ends with the block.

    Outside a worker there is nobody to tell, and no thread.
    """

    def __init__(self, task: luigi.Task) -> None:
        self._task: Any = task  # Luigi gives it what to tell with while it runs
        self._changed = threading.Condition()
        self._state: tuple[float, str] | None = None
        self._link: str | None = None
        self._answers: deque[tuple[Any, str]] = deque()
        self._fresh = self._linked = self._over = False
        self._thread = threading.Thread(target=self._run, name=f"telling of {task}", daemon=True)

    def __enter__(self) -> Teller:
        if self._task.set_status_message is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def tell(self, percentage: float, status: str) -> None:
        """What the page is to show from now on."""
        with self._changed:
            if self._state != (percentage, status):
                self._state, self._fresh = (percentage, status), True
                self._changed.notify()

    def link(self, address: str) -> None:
        """Where the page is to lead who wants to see more."""
        with self._changed:
            self._link, self._linked, self._fresh = address, False, True
            self._changed.notify()

    def messages(self) -> list[Any]:
        """What was sent to the task from the page since this was last asked."""
        taken: list[Any] = []
        messages = getattr(self._task, "scheduler_messages", None)  # where the task accepts any
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
        over = False
        while not over:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self._fresh or self._answers, _SECONDS_BEFORE_AGAIN)
            took = self._send()
            with self._changed:
                # The last words may have come while the ones before were sent.
                over = self._over and not (took and (self._fresh or self._answers))
                pause = _SECONDS_BETWEEN if took else _SECONDS_BEFORE_ANOTHER_TRY
                self._changed.wait_for(self._hurries if took else self._ends, pause)

    def _ends(self) -> bool:
        return self._over

    def _hurries(self) -> bool:
        """Whether what is to be sent next cannot wait for its turn: a person is waiting for it."""
        return self._over or bool(self._answers)

    def _send(self) -> bool:
        """Sends all that there is; whether it was taken."""
        with self._changed:
            state, self._fresh = self._state, False
        try:
            self._send_answers()
            if self._link is not None and not self._linked:
                self._task.set_tracking_url(self._link)
                self._linked = True
            if state is not None:
                self._task.set_status_message(state[1])
                self._task.set_progress_percentage(round(state[0], 1))
        except Exception as error:  # whatever the scheduler's client raises must not end the work
            log.debug("the scheduler did not take what was told of %s: %s", self._task, error)
            # One that comes back may have forgotten it.
            self._linked = False
            return False
        return True

    def _send_answers(self) -> None:
        while self._answers:
            message, text = self._answers[0]
            message.respond(text)
            self._answers.popleft()
