"""Luigi's client of luigid, extended so that a run continues when luigid is gone, slow, or restarted without its state.

While luigid answers, it decides. When it does not, a fallback scheduler in this process decides; it knows the same
tasks in the same state. When luigid answers again, it receives what happened and decides again. Each change is logged
once.

Luigi's own client waits for minutes and then fails the run. A luigid that was restarted knows no tasks, so Luigi's
worker would take its work for done.
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

# Reports need no answer, so their timeout is shorter than that of a decision.
_REPORT_TIMEOUT_SECONDS = 3.0
_NO_ANSWER = (requests.RequestException, ValueError)


class ResilientScheduler(luigi.rpc.RemoteScheduler):
    """The scheduler of Luigi's worker. In the processes that tasks run in it only reports and decides nothing.

    Args:
        url: URL of luigid.
        connect_timeout: seconds that a decision may take; [core] rpc_connect_timeout by default.
        process: id of the process that asks for decisions; this one by default.
    """

    def __init__(self, url: str, connect_timeout: float | None = None, process: int | None = None) -> None:
        super().__init__(url, connect_timeout)
        self._process = process or os.getpid()
        # Shared by the worker and its thread that pings luigid.
        self._lock = threading.RLock()
        self._state = WorkerState()
        self._fallback: Scheduler | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles without the state: a message from Luigi's page takes its scheduler along to the task's process."""
        return type(self), (self._url, self._connect_timeout, self._process)

    def _request(
        self,
        url: str,
        data: dict[str, Any],
        attempts: int = 1,  # noqa: ARG002 - asked once, see above
        allow_null: bool = True,  # noqa: ARG002
    ) -> Any:
        """Sends a request to luigid or to the fallback. Every method of Luigi's client calls this."""
        method = url.rsplit("/", 1)[-1]
        if os.getpid() != self._process:
            return self._post(method, self._state.complete_report(method, data), _REPORT_TIMEOUT_SECONDS)
        if method == "ping":
            return self._ping(data)
        with self._lock:
            answer = self._decide(method, data)
            if self._fallback is None and self._state.is_work_missing(method, answer) and self._luigid_lost_tasks():
                self._state.replay(self._send, everything=True)
                answer = self._decide(method, data)
            self._state.record(method, data, answer, delivered=self._fallback is None)
            if method == "get_work" and answer["task_id"]:
                self._clear_status(answer["task_id"])
            return answer

    def _clear_status(self, task: str) -> None:
        """Clears the status of an earlier run of a task. It would stay on the page if the task failed at once."""
        self._decide("set_task_status_message", {"task_id": task, "status_message": None})
        self._decide("set_task_progress_percentage", {"task_id": task, "progress_percentage": None})

    def _decide(self, method: str, data: dict[str, Any]) -> Any:
        if self._fallback is None:
            try:
                return self._post(method, data, self._connect_timeout)
            except _NO_ANSWER as error:
                self._switch_to_fallback(error)
        return getattr(self._fallback, method)(**data)

    def _ping(self, data: dict[str, Any]) -> Any:
        """Tells luigid that the worker is alive and returns the messages from Luigi's page.

        The answer, or its absence, also decides between luigid and the fallback.
        """
        try:
            answer = self._post("ping", data, _REPORT_TIMEOUT_SECONDS)
        except _NO_ANSWER as error:
            with self._lock:
                self._switch_to_fallback(error)
                return self._decide("ping", data)
        with self._lock:
            self._switch_to_luigid()
        return answer

    def _switch_to_fallback(self, error: Exception) -> None:
        if self._fallback is not None:
            return
        log.warning("luigid at %s does not answer (%s); the run continues without it", self._address, _reason(error))
        # Created as Luigi creates its local scheduler.
        self._fallback = fallback = Scheduler(prune_on_get_work=True, record_task_history=False)
        self._state.replay(lambda method, data: getattr(fallback, method)(**data), everything=True)

    def _switch_to_luigid(self) -> None:
        """Tells luigid, which answers again, what happened meanwhile, or everything if it lost its tasks."""
        if self._fallback is None:
            return
        try:
            self._state.replay(self._send, everything=self._luigid_lost_tasks())
        except _NO_ANSWER:
            return  # gone again; the next ping tries again
        self._state.undelivered.clear()
        self._fallback = None
        log.info("luigid at %s answers again; it received what happened meanwhile", self._address)

    def _luigid_lost_tasks(self) -> bool:
        """Returns whether luigid knows none of the tasks that were delivered to it, because it was restarted."""
        if self._fallback is not None and self._state.undelivered >= set(self._state.tasks):
            return True
        return not any(self._send("dep_graph", {"task_id": task}) for task in self._state.tasks)

    def _send(self, method: str, data: dict[str, Any]) -> Any:
        return self._post(method, data, self._connect_timeout)

    def _post(self, method: str, data: dict[str, Any], timeout: float) -> Any:
        """Sends one request, without retries, and returns luigid's answer.

        Raises:
            RequestException: there is no answer.
            ValueError: the answer is not luigid's.
        """
        page = self._fetcher.fetch(f"{self._url}/api/{method}", {"data": json.dumps(data)}, timeout)
        try:
            return json.loads(page)["response"]
        except (LookupError, TypeError) as error:
            raise ValueError(f"no answer of luigid: {page[:80]}") from error

    @property
    def _address(self) -> str:
        """The URL of luigid, without the password of a proxy."""
        parts = urllib.parse.urlsplit(str(self._url))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception) -> str:
    """Describes an error in a few words. The full text may contain a URL with a password."""
    if isinstance(error, requests.Timeout):
        return "timeout"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    return "the answer is not luigid's"


class WorkerState:
    """What a worker reported of its tasks, so that it can be replayed to another scheduler.

    Attributes:
        tasks: the latest report of each task, by task id.
        undelivered: ids of tasks whose state luigid does not know.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.undelivered: set[str] = set()
        self._registrations: list[tuple[str, dict[str, Any]]] = []

    def record(self, method: str, data: dict[str, Any], answer: Any, delivered: bool) -> None:
        """Records a request to a scheduler and its answer.

        Args:
            method: method of Luigi's scheduler.
            data: its arguments, by name.
            answer: its answer.
            delivered: whether the request went to luigid.
        """
        if method in ("add_worker", "add_task_batcher"):
            self._registrations.append((method, data))
        elif method == "add_task":
            self._record_task(data)
            self._mark(data["task_id"], delivered)
        elif method == "get_work":
            for task in [answer["task_id"], *answer.get("batch_task_ids", ())]:
                if task in self.tasks:
                    self.tasks[task]["status"] = RUNNING
                    self._mark(task, delivered)

    def _record_task(self, data: dict[str, Any]) -> None:
        recorded = self.tasks.get(data["task_id"])
        if recorded is None or data["deps"] is not None or data["status"] == PENDING:
            # Each scheduler decides itself which tasks run as one batch.
            self.tasks[data["task_id"]] = {key: value for key, value in data.items() if key != "batch_id"}
            return
        # A report of the outcome. All other values in it are Luigi's defaults, not the task's.
        recorded.update(status=data["status"], expl=data["expl"])
        recorded["deps"] = [*(recorded["deps"] or ()), *(data.get("new_deps") or ())]

    def _mark(self, task: str, delivered: bool) -> None:
        (self.undelivered.discard if delivered else self.undelivered.add)(task)

    def replay(self, send: Any, everything: bool) -> None:
        """Sends the state to another scheduler.

        Args:
            send: called with a method and its arguments.
            everything: whether to include finished tasks that were delivered.
        """
        for method, data in self._registrations:
            send(method, data)
        for task, data in self.tasks.items():
            if everything or task in self.undelivered or data["status"] not in (DONE, FAILED):
                send("add_task", data)

    def is_work_missing(self, method: str, answer: Any) -> bool:
        """Returns whether a scheduler answers that no work is left although a task is pending."""
        if method != "get_work" or answer["task_id"] or "batch_id" in answer or answer["n_pending_tasks"]:
            return False
        return any(task["status"] == PENDING for task in self.tasks.values())

    def complete_report(self, method: str, data: dict[str, Any]) -> dict[str, Any]:
        """Completes the report of a running task with the values that it omits.

        Without them luigid would lose that the task accepts messages, its resources and its allowed failures.
        """
        recorded = self.tasks.get(data.get("task_id", "")) if method == "add_task" else None
        if recorded is None:
            return data
        return {**recorded, **{key: data[key] for key in ("worker", "status", "tracking_url")}}
