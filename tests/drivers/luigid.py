"""Runs a real luigid on loopback, which a test can kill, suspend and restart."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain import Settings, environment
from servers import free_port, wait_for_port

LUIGID = Path(sys.executable).with_name("luigid")


class Luigid:
    """A luigid process. Its log and its state file are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir()

    def __enter__(self) -> Luigid:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Settings:
        """Settings of a run that uses this luigid."""
        return {"core": {"local_scheduler": "false", "default_scheduler_url": self.url}}

    def start(self) -> None:
        """Starts luigid and waits until it listens."""
        command = [LUIGID, "--address", "127.0.0.1", "--port", str(self.port)]
        log = self.folder / "log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*command, "--state-path", str(self.folder / "state.pickle")], cwd=self.folder, env=environment(),
                stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for_port(self.port, self.process, log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def suspend(self) -> None:
        """Stops the process (SIGSTOP): it answers no request, like an overloaded machine."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continues the process after `suspend`."""
        self.process.send_signal(signal.SIGCONT)

    def call(self, method: str, **arguments: Any) -> Any:
        """Calls a method of luigid's HTTP API and returns its response."""
        data = urllib.parse.urlencode({"data": json.dumps(arguments)})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{self.url}/api/{method}?{data}", timeout=30) as answer:
            return json.load(answer)["response"]

    def find_task(self, family: str) -> dict[str, Any]:
        """Finds a task by its family name; returns an empty status if luigid has no such task."""
        tasks = self.call("task_list", status="", upstream_status="", limit=False)
        return next(({"id": key, **task} for key, task in tasks.items() if task["name"] == family), {"status": ""})

    def send_message(self, family: str, content: str) -> Callable[[], str | None]:
        """Sends a message to a running task, as the page does; returns a function that reads the answer."""
        task = self.find_task(family)
        sent = self.call("send_scheduler_message", worker=task["worker_running"], task=task["id"], content=content)
        message = {"task_id": task["id"], "message_id": sent["message_id"]}
        return lambda: self.call("get_scheduler_message_response", **message)["response"]

    def dump_api(self) -> str:
        """Returns everything that the visualizer can show, as JSON."""
        tasks = self.call("task_list", status="", upstream_status="", limit=False)
        details = [
            self.call(method, task_id=task)
            for task in tasks
            for method in ("dep_graph", "inverse_dep_graph", "fetch_error", "get_task_status_message")
        ]
        overviews = [self.call(method) for method in ("graph", "worker_list", "resource_list")]
        return json.dumps([tasks, details, overviews], ensure_ascii=False)
