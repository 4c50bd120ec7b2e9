"""A real luigid on loopback, which a test may kill, stop for a while and start again."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain import Settings, environment

LUIGID = Path(sys.executable).with_name("luigid")


class Luigid:
    """Its log and its state are kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])
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
        """What a run needs to find it."""
        return {"core": {"local_scheduler": "false", "default_scheduler_url": self.url}}

    def start(self) -> None:
        command = [LUIGID, "--address", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--state-path", str(self.folder / "state.pickle")], cwd=self.folder, env=environment(),
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Lets it answer nothing, as a machine that is overloaded."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ask(self, method: str, **arguments: Any) -> Any:
        data = urllib.parse.urlencode({"data": json.dumps(arguments)})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{self.url}/api/{method}?{data}", timeout=30) as answer:
            return json.load(answer)["response"]

    def task(self, family: str) -> dict[str, Any]:
        """What the page knows of a task, by its name; its status is empty where it knows none."""
        tasks = self.ask("task_list", status="", upstream_status="", limit=False)
        return next(({"id": key, **one} for key, one in tasks.items() if one["name"] == family), {"status": ""})

    def send(self, family: str, content: str) -> Callable[[], str | None]:
        """Sends a message to a running task as the page does; what is given asks for its answer."""
        task = self.task(family)
        sent = self.ask("send_scheduler_message", worker=task["worker_running"], task=task["id"], content=content)
        asked = {"task_id": task["id"], "message_id": sent["message_id"]}
        return lambda: self.ask("get_scheduler_message_response", **asked)["response"]

    def everything(self) -> str:
        """All that the visualizer can show."""
        tasks = self.ask("task_list", status="", upstream_status="", limit=False)
        each = [
            self.ask(method, task_id=task)
            for task in tasks
            for method in ("dep_graph", "inverse_dep_graph", "fetch_error", "get_task_status_message")
        ]
        whole = [self.ask(method) for method in ("graph", "worker_list", "resource_list")]
        return json.dumps([tasks, each, whole], ensure_ascii=False)
