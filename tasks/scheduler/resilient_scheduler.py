"""Luigi's scheduler on the network, as a night needs it: it may go away, be slow, or come back with an empty memory,
and the run goes on.

As long as luigid answers, it decides. When it does not, a scheduler in this process decides in its place, told of the
same tasks in the same state; when luigid answers again, it is told what happened and decides again. Both are said once.
Luigi's own client waits for minutes instead, then fails the run; and a luigid that was started anew knows no tasks, so
that Luigi's worker would take its work for done.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.parse
from typing import Any

import luigi.rpc
import requests
from luigi.scheduler import Scheduler
from luigi.task_status import DONE, FAILED, PENDING, RUNNING

log = logging.getLogger("spamscore")

# What tells and decides nothing is not waited for as long as a decision is.
_SECONDS_FOR_TELLING = 3.0
_SILENT = (requests.RequestException, ValueError)


class ResilientScheduler(luigi.rpc.RemoteScheduler):
    """What Luigi's worker takes for the scheduler. In the processes that tasks run in it tells, and decides nothing.

    Args:
        url: where luigid is.
        connect_timeout: seconds that a decision may take; [core] rpc_connect_timeout by default.
        process: the one that asks for decisions; by default this one.
    """

    def __init__(self, url: str, connect_timeout: float | None = None, process: int | None = None) -> None:
        super().__init__(url, connect_timeout)
        self._process = process or os.getpid()
        # The worker, and its thread that shows luigid that it is alive.
        self._lock = threading.RLock()
        self._memory = Memory()
        self._substitute: Scheduler | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A message from Luigi's page travels to its task with the scheduler that takes the answer."""
        return type(self), (self._url, self._connect_timeout, self._process)

    def _request(
        self,
        url: str,
        data: dict[str, Any],
        attempts: int = 1,  # noqa: ARG002 - asked once, see above
        allow_null: bool = True,  # noqa: ARG002
    ) -> Any:
        """Asks luigid, or who stands in for it. Every method of Luigi's client comes through here."""
        method = url.rsplit("/", 1)[-1]
        if os.getpid() != self._process:
            return self._ask(method, self._memory.completed(method, data), _SECONDS_FOR_TELLING)
        if method == "ping":
            return self._ping(data)
        with self._lock:
            answer = self._decision(method, data)
            if self._substitute is None and self._memory.misses_work(method, answer) and self._has_forgotten():
                self._memory.tell(self._ask_in_turn, everything=True)
                answer = self._decision(method, data)
            self._memory.keep(method, data, answer, told=self._substitute is None)
            if method == "get_work" and answer["task_id"]:
                self._clear(answer["task_id"])
            return answer

    def _clear(self, task: str) -> None:
        """Takes from a task that begins what it said when it ran before: should it fail at once, that would stay."""
        self._decision("set_task_status_message", {"task_id": task, "status_message": None})
        self._decision("set_task_progress_percentage", {"task_id": task, "progress_percentage": None})

    def _decision(self, method: str, data: dict[str, Any]) -> Any:
        if self._substitute is None:
            try:
                return self._ask(method, data, self._connect_timeout)
            except _SILENT as error:
                self._lose(error)
        return getattr(self._substitute, method)(**data)

    def _ping(self, data: dict[str, Any]) -> Any:
        """Shows that the worker is alive, brings what was said to it on Luigi's page, and finds out how luigid is."""
        try:
            answer = self._ask("ping", data, _SECONDS_FOR_TELLING)
        except _SILENT as error:
            with self._lock:
                self._lose(error)
                return self._decision("ping", data)
        with self._lock:
            self._find()
        return answer

    def _lose(self, error: Exception) -> None:
        if self._substitute is not None:
            return
        log.warning("luigid at %s does not answer (%s); the run goes on without it", self._address, _reason(error))
        # As Luigi makes the one for runs without luigid.
        self._substitute = substitute = Scheduler(prune_on_get_work=True, record_task_history=False)
        self._memory.tell(lambda method, data: getattr(substitute, method)(**data), everything=True)

    def _find(self) -> None:
        """Luigid answers: if it was away it is told what happened meanwhile, and everything if it knows nothing."""
        if self._substitute is None:
            return
        try:
            self._memory.tell(self._ask_in_turn, everything=self._has_forgotten())
        except _SILENT:
            return  # gone again; the next ping sees
        self._memory.untold.clear()
        self._substitute = None
        log.info("luigid at %s answers again; it knows what happened meanwhile", self._address)

    def _has_forgotten(self) -> bool:
        """Whether luigid knows none of the tasks that it was told of, as one that was started anew."""
        if self._substitute is not None and self._memory.untold >= set(self._memory.tasks):
            return True
        return not any(self._ask_in_turn("dep_graph", {"task_id": one}) for one in self._memory.tasks)

    def _ask_in_turn(self, method: str, data: dict[str, Any]) -> Any:
        return self._ask(method, data, self._connect_timeout)

    def _ask(self, method: str, data: dict[str, Any], timeout: float) -> Any:
        """Luigid's answer to one question, asked once.

        Raises:
            RequestException: there is none.
            ValueError: what answers is not luigid.
        """
        page = self._fetcher.fetch(f"{self._url}/api/{method}", {"data": json.dumps(data)}, timeout)
        try:
            return json.loads(page)["response"]
        except (LookupError, TypeError) as error:
            raise ValueError(f"no answer of luigid: {page[:80]}") from error

    @property
    def _address(self) -> str:
        """Where luigid is, without the password that a proxy before it may want."""
        parts = urllib.parse.urlsplit(str(self._url))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception) -> str:
    """In a few words; the whole text may hold an address with a password."""
    if isinstance(error, requests.Timeout):
        return "nothing came in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    return "what answers there is not luigid"


class Memory:
    """What a worker said of its tasks, enough to say it to another scheduler.

    Attributes:
        tasks: what was said of each last.
        untold: tasks whose state luigid does not know.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.untold: set[str] = set()
        self._before: list[tuple[str, dict[str, Any]]] = []

    def keep(self, method: str, data: dict[str, Any], answer: Any, told: bool) -> None:
        """Takes what was said to a scheduler and what it answered.

        Args:
            method: of Luigi's scheduler.
            data: its arguments, by name.
            answer: its answer.
            told: whether it was luigid.
        """
        if method in ("add_worker", "add_task_batcher"):
            self._before.append((method, data))
        elif method == "add_task":
            self._keep_task(data)
            self._mark(data["task_id"], told)
        elif method == "get_work":
            for task in [answer["task_id"], *answer.get("batch_task_ids", ())]:
                if task in self.tasks:
                    self.tasks[task]["status"] = RUNNING
                    self._mark(task, told)

    def _keep_task(self, data: dict[str, Any]) -> None:
        known = self.tasks.get(data["task_id"])
        if known is None or data["deps"] is not None or data["status"] == PENDING:
            # Which tasks run together is for the scheduler to find out anew.
            self.tasks[data["task_id"]] = {key: value for key, value in data.items() if key != "batch_id"}
            return
        # How it went. The rest of such a message is what Luigi fills in, not what the task is.
        known.update(status=data["status"], expl=data["expl"])
        known["deps"] = [*(known["deps"] or ()), *(data.get("new_deps") or ())]

    def _mark(self, task: str, told: bool) -> None:
        (self.untold.discard if told else self.untold.add)(task)

    def tell(self, say: Any, everything: bool) -> None:
        """Says it all to another scheduler; or all but what is finished and was told.

        Args:
            say: called with a method and its arguments.
            everything: whether it knows nothing yet.
        """
        for method, data in self._before:
            say(method, data)
        for name, data in self.tasks.items():
            if everything or name in self.untold or data["status"] not in (DONE, FAILED):
                say("add_task", data)

    def misses_work(self, method: str, answer: Any) -> bool:
        """Whether a scheduler says that nothing is left to do although something is."""
        if method != "get_work" or answer["task_id"] or "batch_id" in answer or answer["n_pending_tasks"]:
            return False
        return any(one["status"] == PENDING for one in self.tasks.values())

    def completed(self, method: str, data: dict[str, Any]) -> dict[str, Any]:
        """What a running task says of itself, with what it does not: without, luigid would forget that it takes
        messages, its resources and how often it may fail.
        """
        known = self.tasks.get(data.get("task_id", "")) if method == "add_task" else None
        return data if known is None else {**known, **{key: data[key] for key in ("worker", "status", "tracking_url")}}
