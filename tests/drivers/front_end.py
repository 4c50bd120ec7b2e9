"""Starts `spamscore api` in a folder, and sends it requests as a browser or a program does."""

from __future__ import annotations

import configparser
import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from chain import environment, kill_group_on_exit
from eventually import eventually
from servers import free_port, wait_for_port
from spamscore_command import SPAMSCORE


@dataclass(frozen=True)
class FrontEnd:
    """A running front end.

    Attributes:
        url: its address, without a slash at the end.
        process: the command.
        folder: its working folder.
        grpc_port: its port for gRPC; 0 for none.
    """

    url: str
    process: subprocess.Popen[str]
    folder: Path
    grpc_port: int = 0

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    @property
    def host(self) -> str:
        """Its name and port, as a browser sends them."""
        return self.url.partition("://")[2]

    @property
    def log(self) -> str:
        """Its output."""
        return (self.folder / "api.log").read_text("utf-8", errors="replace")

    def get(self, path: str, **options: Any) -> requests.Response:
        """Sends a GET request."""
        return self.send("GET", path, **options)

    def post(self, path: str, body: object, **options: Any) -> requests.Response:
        """Sends a POST request: bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, data=content, **options)

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """Sends a request, without a proxy of the environment."""
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, **{"timeout": 60, **options})

    def predict(self, *messages: str, query: str = "") -> dict[str, Any]:
        """Returns the answer to POST /v1/predictions."""
        answer = self.post(f"/v1/predictions{query}", {"messages": messages})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def readiness(self, **options: Any) -> dict[str, Any]:
        """Returns the answer of /readyz; an empty one while the server does not listen."""
        try:
            return dict(self.get("/readyz", **options).json())
        except requests.ConnectionError:
            return {"ready": False}

    def wait_until_ready(self, **options: Any) -> None:
        """Waits until messages can be scored."""
        eventually(lambda: self.readiness(**options)["ready"], check=self._check_runs, detail=lambda: self.log)

    def metric(self, name: str, **options: Any) -> float:
        """Returns the value of a metric; 0 if it is not there yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics", **options).text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self) -> int:
        """Sends SIGTERM, and returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def _check_runs(self) -> None:
        assert self.process.poll() is None, self.log


@contextlib.contextmanager
def front_end(
    folder: Path, *options: str, port: int | None = None, ready: bool = True, scheme: str = "http", **variables: str
) -> Iterator[FrontEnd]:
    """Starts the command, waits until it can score messages, and ends it at the end of the block.

    Args:
        folder: working folder; its output is in the file ``api.log`` there.
        options: of the command.
        port: its port; a free one if not given.
        ready: whether to wait until messages can be scored, or only until it listens.
        scheme: https for TLS; then only until it listens.
        variables: of its environment.
    """
    _allow_slow_answers(folder / "luigi.cfg")
    port = port or free_port()
    log = folder / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [SPAMSCORE, "api", "--port", str(port), *options], cwd=folder, env=environment(**variables),
            stdout=output, stderr=output, text=True, start_new_session=True,
        )  # fmt: skip
    with kill_group_on_exit(process):
        wait_for_port(port, process, log)
        grpc_port = int(options[options.index("--grpc-port") + 1]) if "--grpc-port" in options else 0
        running = FrontEnd(f"{scheme}://127.0.0.1:{port}", process, folder, grpc_port)
        if ready and scheme == "http":
            running.wait_until_ready()
        yield running


def _allow_slow_answers(settings: Path) -> None:
    """Sets [api] timeout, unless the test does: the first answer of a busy machine may take longer than the default."""
    text = settings.read_text("utf-8") if settings.exists() else ""
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    if parser.has_option("api", "timeout"):
        return
    head, _, rest = text.partition("[api]\n")
    settings.write_text(f"{head}\n[api]\ntimeout = 50\n{rest}", "utf-8")


class Visitor:
    """A browser without scripts: keeps cookies, and sends what a browser sends with a form of a page.

    Attributes:
        session: holds the cookies.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end = front_end
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, **headers: str) -> requests.Response:
        """Opens a page, without following redirects."""
        return self._send("GET", path, headers)

    def csrf_token(self, path: str = "/") -> str:
        """Returns the token in the forms of a page."""
        match = re.search(r'name="csrf-token" content="([^"]+)"', self.get(path).text)
        assert match, f"{path} has no token"
        return match[1]

    def post(self, path: str, fields: dict[str, str] | str, **headers: str) -> requests.Response:
        """Sends a form. The headers are used in place of those of a browser; an empty one is left out."""
        return self._send("POST", path, {**self._own_page(), **headers}, data=fields)

    def post_json(self, path: str, content: object, **headers: str) -> requests.Response:
        """Sends JSON as the script of a page does."""
        return self._send("POST", path, {**self._own_page(), **headers}, json=content)

    def _own_page(self) -> dict[str, str]:
        return {"Origin": self._front_end.url, "Sec-Fetch-Site": "same-origin"}

    def _send(self, method: str, path: str, headers: dict[str, str], **content: Any) -> requests.Response:
        sent = {name: value for name, value in headers.items() if value}
        return self.session.request(
            method, self._front_end.url + path, headers=sent, allow_redirects=False, timeout=60, **content
        )
